//! Progress and interruption.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::pixels;
use crate::server::TestServer;

#[test]
fn progress_is_seen_and_a_job_is_interrupted() {
    let server = TestServer::new();
    let idle = server.get("/sdapi/v1/progress");
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
    assert_eq!(idle["current_image"], Value::Null);
    let body = json!({"prompt": "cat", "steps": 1000, "batch_size": 2, "force_task_id": "task(a)"});
    let answer = std::thread::scope(|scope| {
        let running = scope.spawn(|| server.images("txt2img", &body));
        let begun = Instant::now();
        let seen = loop {
            let seen = server.get("/sdapi/v1/progress?id_task=task(a)");
            if !seen["current_image"].is_null() {
                break seen;
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "{seen}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let progress = seen["progress"].as_f64().unwrap();
        assert!(0. < progress && progress < 1., "{seen}");
        assert_eq!((&seen["state"]["job"], &seen["state"]["job_count"]), (&json!("task(a)"), &json!(1)));
        assert_eq!(seen["state"]["sampling_steps"], 2000);
        assert!(pixels(&seen["current_image"]).width() > 0);
        let skipped = server.get("/sdapi/v1/progress?skip_current_image=true");
        assert!(skipped["current_image"].is_null() && skipped["progress"].as_f64().unwrap() > 0.);
        // A task of that name has not ended; another is not there.
        assert_eq!(server.post("/sdapi/v1/txt2img", &body).0, 409);
        assert_eq!(server.get("/sdapi/v1/progress?id_task=other")["state"]["job_count"], 0);
        server.send("POST", "/sdapi/v1/interrupt?id_task=other", None);
        let task = server.post("/internal/progress", &json!({"id_task": "task(a)", "id_live_preview": -1})).1;
        assert_eq!(
            (&task["active"], &task["queued"], &task["completed"]),
            (&json!(true), &json!(false), &json!(false))
        );
        assert!(task["live_preview"].as_str().unwrap().starts_with("data:image/png;base64,"), "{task}");
        let number = task["id_live_preview"].as_i64().unwrap();
        server.sdapi("options", &json!({"show_progress_every_n_steps": 0}));
        assert!(server.get("/sdapi/v1/progress")["current_image"].is_null());
        let task =
            server.post("/internal/progress", &json!({"id_task": "task(a)", "id_live_preview": number})).1;
        assert_eq!((&task["live_preview"], &task["id_live_preview"]), (&Value::Null, &json!(number)));
        assert_eq!(server.send("POST", "/sdapi/v1/interrupt", None), (200, json!({})));
        running.join().unwrap()
    });
    let (images, info) = answer;
    assert_eq!((images.len(), &info["all_seeds"]), (0, &json!([])));
    let task = server.post("/internal/progress", &json!({"id_task": "task(a)"})).1;
    assert_eq!((&task["active"], &task["completed"]), (&json!(false), &json!(true)));
    let idle = server.get("/sdapi/v1/progress");
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
}

#[test]
fn a_job_of_another_api_is_not_interrupted_without_its_name() {
    let server = TestServer::new();
    let (_, job) = server.post("/v1/jobs", &json!({"steps": 30}));
    assert_eq!(server.get("/sdapi/v1/progress")["state"]["job_count"], 0);
    server.send("POST", "/sdapi/v1/interrupt", None);
    server.send("POST", "/sdapi/v1/skip", None);
    let id = job["id"].as_str().unwrap();
    assert_eq!(server.end(id)["state"], "done");
}

#[test]
fn images_that_were_complete_are_in_the_answer_of_an_interrupted_job() {
    let server = TestServer::with(|options| options.batch_size = 1);
    let body = json!({"prompt": "cat", "steps": 60, "n_iter": 40, "seed": 1, "force_task_id": "t"});
    let (images, info) = std::thread::scope(|scope| {
        let running = scope.spawn(|| server.images("txt2img", &body));
        while server.get("/sdapi/v1/progress")["state"]["job_no"].as_u64().unwrap() < 2 {
            std::thread::sleep(Duration::from_millis(10));
        }
        server.send("POST", "/sdapi/v1/skip?id_task=t", None);
        running.join().unwrap()
    });
    assert!((2..40).contains(&images.len()), "{}", images.len());
    assert_eq!(info["all_seeds"].as_array().unwrap().len(), images.len());
}
