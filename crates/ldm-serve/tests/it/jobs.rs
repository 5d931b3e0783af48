//! Jobs of the server's own API.

use serde_json::json;

use crate::server::TestServer;

#[test]
fn a_job_is_sampled_and_has_the_bytes_of_the_library() {
    let server = TestServer::new();
    let job = server.job(&json!({"prompt": "red heart", "seed": 7, "steps": 3, "n": 2}));
    assert_eq!((&job["state"], &job["images"][1]["seed"]), (&json!("done"), &json!(8)));
    let id = job["id"].as_str().unwrap();
    let pipeline = ldm::Pipeline::open(ldm::model_path("emoji".into()).unwrap()).unwrap();
    for index in 0..2 {
        let alone = ldm::Request::text("red heart").seed(7 + index).steps(3);
        let alone = pipeline.generate(&alone).unwrap();
        let served = server.bytes(&format!("/v1/jobs/{id}/images/{index}"));
        assert!(served == alone.png(0).unwrap(), "image {index}");
    }
}

#[test]
fn a_wrong_request_is_refused_with_its_field() {
    let server = TestServer::new();
    for (request, message) in [
        (json!({"steps": 0}), "steps: expected 1 to 1000, got 0"),
        (json!({"stps": 1}), "unknown field `stps`"),
        (json!({"steps": "x"}), "steps: invalid type: string \"x\", expected usize"),
        (json!({"model": "sd"}), "model: expected one of emoji, got sd"),
        (json!({"width": 64}), "height: expected one with a width"),
        (json!({"width": 60, "height": 64}), "width: expected a multiple of 16 (nearest: 48 and 64), got 60"),
        (json!({"sampler": "eular"}), "sampler: expected one of"),
        (json!({"image": "http://127.0.0.1/x.png"}), "image: expected base64, got a URL"),
        (json!({"image": "aGk="}), "image: expected a PNG, JPEG, WebP, BMP, GIF or TIFF file"),
        (json!({"class": "3"}), "class: not of use for emoji, a model conditioned on a text"),
        (json!({"strength": 0.5}), "strength: expected an initial image with it"),
        (json!({"guidance_scale": 1e300}), "guidance_scale: expected a number"),
    ] {
        let (status, answer) = server.post("/v1/jobs", &request);
        let got = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(got.starts_with(message) || got.contains(message), "{request}: {status} {answer}");
        assert!((400..500).contains(&status), "{request}: {status}");
    }
    assert_eq!(server.get("/v1/jobs")["jobs"], json!([]));
}

#[test]
fn strangers_share_a_batch_and_have_the_bytes_of_images_alone() {
    let server = TestServer::new();
    // The first keeps the worker busy, so that the others wait and are sampled together.
    let (_, first) = server.post("/v1/jobs", &json!({"prompt": "fire", "steps": 40, "seed": 1}));
    let prompts = ["red heart", "grinning face", "blue circle"];
    let jobs = prompts.map(|prompt| {
        let request = json!({"prompt": prompt, "negative_prompt": "cat", "seed": prompt.len(), "steps": 4});
        server.post("/v1/jobs", &request).1["id"].as_str().unwrap().to_owned()
    });
    server.end(first["id"].as_str().unwrap());
    let starts: Vec<_> = jobs.iter().map(|id| server.end(id)["started"].clone()).collect();
    assert!(starts.iter().all(|start| *start == starts[0]), "one batch: {starts:?}");
    let pipeline = ldm::Pipeline::open(ldm::model_path("emoji".into()).unwrap()).unwrap();
    for (id, prompt) in jobs.iter().zip(prompts) {
        let alone = ldm::Request::text(prompt).negative("cat").seed(prompt.len() as u64).steps(4);
        let alone = pipeline.generate(&alone).unwrap().png(0).unwrap();
        assert!(server.bytes(&format!("/v1/jobs/{id}/images/0")) == alone, "{prompt}");
    }
}

#[test]
fn a_job_is_canceled_where_it_waits_and_where_it_runs() {
    let server = TestServer::new();
    let submit = |steps: usize| {
        let request = json!({"prompt": "fire", "steps": steps, "sampler": "euler_a"});
        server.post("/v1/jobs", &request).1["id"].as_str().unwrap().to_owned()
    };
    let (running, waiting) = (submit(1000), submit(999));
    while server.get(&format!("/v1/jobs/{running}"))["progress"]["step"] == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(server.get(&format!("/v1/jobs/{waiting}"))["position"], 1);
    for id in [&waiting, &running] {
        let (status, job) = server.send("POST", &format!("/v1/jobs/{id}/cancel"), None);
        assert_eq!(status, 200, "{job}");
        let end = server.end(id);
        assert_eq!((&end["state"], &end["error"]["kind"]), (&json!("canceled"), &json!("canceled")));
        assert_eq!(server.send("POST", &format!("/v1/jobs/{id}/cancel"), None).0, 409);
    }
    let unknown = "/v1/jobs/00000000000000000000000000000000";
    assert_eq!(server.send("GET", unknown, None).0, 404);
    assert_eq!(server.send("DELETE", &format!("/v1/jobs/{running}"), None).0, 204);
    assert_eq!(server.send("GET", &format!("/v1/jobs/{running}"), None).0, 404);
}

#[test]
fn events_and_previews_are_sent_while_a_job_runs() {
    let server = TestServer::new();
    let request = json!({"prompt": "fire", "steps": 300, "sampler": "euler_a"});
    let (_, job) = server.post("/v1/jobs", &request);
    let id = job["id"].as_str().unwrap();
    let text = String::from_utf8(server.bytes(&format!("/v1/jobs/{id}/events"))).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let steps: Vec<_> = events.iter().map(|event| event["progress"]["step"].as_u64().unwrap()).collect();
    assert!(steps.is_sorted() && steps.len() > 5, "{steps:?}");
    assert!(events.iter().any(|event| event["progress"]["preview"].is_u64()), "a preview is announced");
    let last = events.last().unwrap();
    assert_eq!((&last["state"], &last["progress"]["step"]), (&json!("done"), &json!(300)));
    assert!(text.trim_end().rsplit('\n').nth(1) == Some("event: done"), "the stream ends with the job");
}

#[test]
fn parameters_are_read_from_an_image() {
    let server = TestServer::new();
    let job = server.job(&json!({"prompt": "red heart", "seed": 7, "steps": 3, "width": 48, "height": 64}));
    let png = server.bytes(&format!("/v1/jobs/{}/images/0", job["id"].as_str().unwrap()));
    let mut answer = crate::server::agent().post(format!("{}/v1/parameters", server.url)).send(&png).unwrap();
    let found: serde_json::Value =
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    let again = server.job(&found["request"]);
    let path = format!("/v1/jobs/{}/images/0", again["id"].as_str().unwrap());
    assert!(server.bytes(&path) == png, "{found}");
    assert_eq!(found["ignored"], json!([]));
}

#[test]
fn results_are_removed_beyond_their_retention() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(crate::server::options(folder.path()));
    let job = server.job(&json!({"prompt": "fire", "steps": 1}));
    drop(server);
    let mut options = crate::server::options(folder.path());
    options.retention.bytes = 1;
    let server = TestServer::start(options);
    for _ in 0..200 {
        let files = folder.path().join("jobs").join(job["id"].as_str().unwrap());
        if server.get("/v1/jobs")["jobs"] == json!([]) && !files.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    panic!("still there: {}", server.get("/v1/jobs"));
}

#[test]
fn waiting_jobs_run_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let server = TestServer::start(crate::server::options(data.path()));
    let submit = |steps: usize| {
        let request = json!({"prompt": "fire", "steps": steps, "seed": 3});
        server.post("/v1/jobs", &request).1["id"].as_str().unwrap().to_owned()
    };
    let jobs = [submit(60), submit(4), submit(5)];
    drop(server);
    let server = TestServer::start(crate::server::options(data.path()));
    for id in &jobs {
        let job = server.end(id);
        assert_eq!(job["state"], "done", "{job}");
        server.bytes(&format!("/v1/jobs/{id}/images/0"));
    }
}
