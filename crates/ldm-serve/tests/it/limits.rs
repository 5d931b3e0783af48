//! Requests that would take much time or memory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, GrayImage, Luma};
use serde_json::{Value, json};

use crate::server::{TestServer, agent};

/// Base64 of a gray PNG.
fn gray(width: u32, height: u32, value: u8) -> String {
    let image = DynamicImage::from(GrayImage::from_pixel(width, height, Luma([value])));
    STANDARD.encode(ldm_core::image::png(&image, &[]))
}

/// A long job, behind which others wait.
fn busy(server: &TestServer) {
    let (status, job) = server.post("/v1/jobs", &json!({"prompt": "fire", "steps": 1000, "n": 8}));
    assert_eq!(status, 202, "{job}");
}

fn cancel_all(server: &TestServer) {
    for job in server.get("/v1/jobs")["jobs"].as_array().unwrap() {
        server.send("POST", &format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap()), None);
    }
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().or_else(|| answer["detail"].as_str()).unwrap_or_default()
}

/// One mask of 12 KB took 281 terabytes on its way to the size of the image.
#[test]
fn long_images_and_masks_take_no_memory() {
    let server = TestServer::new();
    for (image, mask, width, status) in [
        (gray(1, 1 << 22, 0), gray(1 << 22, 1, 255), 1024, 413),
        (gray(1, 1 << 14, 0), gray(1 << 14, 1, 255), 2048, 400),
        (gray(1 << 14, 1, 0), gray(1, 1 << 14, 255), 128, 200),
    ] {
        let body = json!({"prompt": "a", "steps": 1, "width": width, "height": 64, "init_images": [image], "mask": mask,
            "mask_blur": 0, "resize_mode": 0, "inpaint_full_res": false, "denoising_strength": 1});
        let (got, answer) = server.post("/sdapi/v1/img2img", &body);
        assert_eq!(got, status, "{}", message(&answer));
    }
    let body = json!({"prompt": "a", "steps": 1, "width": 64, "height": 64, "image": gray(64, 64, 0)});
    for (mask, feather, status) in
        [(gray(1 << 22, 1, 255), 0, 413), (gray(1 << 14, 1, 255), 0, 202), (gray(64, 64, 255), u32::MAX, 202)]
    {
        let mut body = body.clone();
        (body["mask"], body["feather"]) = (json!(mask), json!(feather));
        let (got, answer) = server.post("/v1/jobs", &body);
        assert_eq!(got, status, "{answer}");
        if status == 202 {
            assert_eq!(server.end(answer["id"].as_str().unwrap())["state"], "done");
        }
    }
}

/// 0.4 MB twice took the server 23 seconds to say that it is well.
#[test]
fn texts_beyond_their_limits_are_refused_before_they_are_read() {
    let server = TestServer::new();
    let begun = Instant::now();
    for field in ["prompt", "negative_prompt", "infotext", "hr_prompt", "force_task_id"] {
        let (status, answer) = server.post("/sdapi/v1/txt2img", &json!({(field): "<".repeat(2_000_000)}));
        assert_eq!(status, 400, "{field}");
        assert!(message(&answer).starts_with(&format!("{field}: expected at most")), "{answer}");
    }
    for (field, value) in [
        ("class", json!("x".repeat(300))),
        ("layout", json!([{"label": "x".repeat(300), "box": [0, 0, 1, 1]}])),
        ("spacing", json!("9".repeat(100_000))),
        ("tile", json!("1".repeat(300))),
    ] {
        let (status, answer) = server.post("/v1/jobs", &json!({(field): value}));
        assert_eq!((status, answer["error"]["param"].as_str()), (400, Some(field)), "{}", message(&answer));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Two megabytes of empty objects took 400 in memory.
#[test]
fn bodies_of_many_values_are_refused() {
    let server = TestServer::new();
    let body = json!({"prompt": "a", "x": vec![json!({"": 0}); 20_000]});
    for path in ["/sdapi/v1/txt2img", "/sdapi/v1/options", "/v1/images/generations"] {
        let (status, answer) = server.post(path, &body);
        assert!(matches!(status, 400 | 422), "{status}");
        assert!(answer.to_string().contains("expected at most 10000 values in a body"), "{answer}");
    }
}

/// The start of a request whose body has a length.
fn head(length: usize) -> String {
    format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[test]
fn all_bodies_together_have_a_limit() {
    let server =
        TestServer::with(|options| (options.limits.body, options.limits.bodies) = (1 << 20, 1 << 20));
    let large = json!({"negative_prompt": "x".repeat(800 << 10)});
    let mut half = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    half.write_all(head(900 << 10).as_bytes()).unwrap();
    half.write_all(&vec![b' '; 800 << 10]).unwrap();
    let sent = Instant::now();
    let refused = loop {
        let body = large.to_string();
        let request =
            agent().post(format!("{}/v1/jobs", server.url)).header("content-type", "application/json");
        let answer = request.send(&body).unwrap();
        if answer.status() == 429 || sent.elapsed() > Duration::from_secs(10) {
            break answer;
        }
    };
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "5"));
    // Small ones still fit.
    assert_eq!(server.job(&json!({"prompt": "fire", "steps": 1}))["state"], "done");
    drop(half);
    while server.post("/v1/jobs", &large).0 == 429 {
        assert!(sent.elapsed() < Duration::from_secs(20), "the memory is given back");
    }
}

#[test]
fn waiting_requests_keep_nothing_of_their_bodies() {
    let server =
        TestServer::with(|options| (options.limits.body, options.limits.bodies) = (1 << 20, 1 << 20));
    busy(&server);
    let body = json!({"prompt": "fire", "steps": 1, "unknown": "x".repeat(900 << 10)}).to_string();
    let clients: Vec<_> = (1..=3)
        .map(|number| {
            let (url, body) = (format!("{}/sdapi/v1/txt2img", server.url), body.clone());
            let client = std::thread::spawn(move || {
                agent()
                    .post(url)
                    .header("content-type", "application/json")
                    .send(&body)
                    .unwrap()
                    .status()
                    .as_u16()
            });
            let begun = Instant::now();
            while server.get("/v1/jobs")["jobs"].as_array().unwrap().len() < number + 1 {
                assert!(!client.is_finished() && begun.elapsed() < Duration::from_secs(20), "{number}");
            }
            // The job is in the list a moment before the memory is given back.
            std::thread::sleep(Duration::from_millis(100));
            client
        })
        .collect();
    cancel_all(&server);
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
}

/// Each byte came in the time for a part.
#[test]
fn a_body_that_drips_is_ended() {
    let server = TestServer::with(|options| options.limits.read = Duration::from_secs(1));
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(head(1000).as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let begun = Instant::now();
    let mut byte = [0];
    // Until the server answers, or closes the connection.
    while stream.write_all(b" ").is_ok() && !matches!(stream.read(&mut byte), Ok(0 | 1)) {
        assert!(begun.elapsed() < Duration::from_secs(20), "it drips for ever");
    }
}

#[test]
fn the_work_of_a_job_is_limited() {
    let server = TestServer::with(|options| options.limits.steps = 1000);
    for (request, message_) in [
        (
            json!({"steps": 1000, "n": 64, "width": 512, "height": 512}),
            "steps: expected at most 4096 images x steps x megapixels in a job, got 16000; try fewer steps or images",
        ),
        (
            json!({"steps": 1000, "width": 512, "height": 512, "hires": {"scale": 4, "strength": 1}}),
            "steps: expected at most 4096 images x steps x megapixels in a job, got 4250; try fewer steps or images",
        ),
        (json!({"sampler": "ddim", "eta": 1e308}), "eta: expected a number in [0, 1], got 1e308"),
        (json!({"tile": "8"}), "tile: expected a multiple of 16, got 8"),
        (
            json!({"deep_cache": "1000000:1000000"}),
            "deep_cache: expected an interval and a depth of at most 1000",
        ),
        (json!({"token_merging": 1}), "token_merging: expected a share from 0 to below 1, got 1.0"),
        (json!({"width": 65536, "height": 16}), "width: expected at most 16384, got 65536"),
    ] {
        let (status, answer) = server.post("/v1/jobs", &request);
        assert_eq!((status, message(&answer)), (400, message_), "{request}");
    }
    assert_eq!(server.get("/v1/jobs")["jobs"], json!([]));
}

#[test]
fn a_list_of_levels_has_no_more_steps_than_others() {
    let server = TestServer::with(|options| options.limits.steps = 4);
    let (status, answer) = server.post("/v1/jobs", &json!({"steps": 4, "spacing": "999,800,600,400,200"}));
    assert_eq!((status, message(&answer)), (400, "spacing: expected a name, or at most 4 levels"));
    let (status, answer) = server.post("/v1/jobs", &json!({"prompt": "fire"}));
    assert_eq!(status, 400, "the default of the model: {answer}");
    let job = server.job(&json!({"prompt": "fire", "steps": 4, "spacing": "999,800,600,400"}));
    assert_eq!((&job["state"], &job["progress"]["steps"]), (&json!("done"), &json!(4)), "{job}");
    // A sampler whose own default is every level.
    let job = server.job(&json!({"prompt": "fire", "sampler": "ddpm"}));
    assert_eq!(job["error"]["message"], "steps: expected at most 4, got 1000, the default; name fewer");
}

/// The limit was that of a batch, of which a job may have 64.
#[test]
fn the_time_of_a_job_is_that_of_all_its_batches() {
    let server = TestServer::with(|options| {
        (options.batch_size, options.limits.job) = (1, Some(Duration::from_secs(3)));
    });
    let job = server.job(&json!({"prompt": "fire", "steps": 30, "n": 64, "sampler": "euler_a"}));
    assert_eq!((&job["state"], &job["error"]["kind"]), (&json!("failed"), &json!("timed_out")), "{job}");
    let images = job["images"].as_array().unwrap().len();
    assert!((1..64).contains(&images), "{images} images");
}

#[test]
fn streams_and_waits_leave_connections_for_others() {
    let server = TestServer::with(|options| options.limits.connections = 20);
    let open = |path: &str| {
        let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (String::from_utf8(status.to_vec()).unwrap(), stream)
    };
    let streams: Vec<_> = (0..12).map(|_| open("/v1/events")).collect();
    let accepted = streams.iter().filter(|(status, _)| status == "HTTP/1.1 200").count();
    let refused = streams.iter().filter(|(status, _)| status == "HTTP/1.1 429").count();
    assert_eq!((accepted, refused), (5, 7));
    assert_eq!(server.send("GET", "/health", None).0, 200);
}

#[test]
fn the_queue_and_the_journal_have_a_size() {
    let server = TestServer::with(|options| options.limits.queue_bytes = 50_000);
    busy(&server);
    let submit =
        || server.post("/v1/jobs", &json!({"prompt": "fire", "negative_prompt": "x".repeat(19_000)}));
    let answers: Vec<_> = (0..3).map(|_| submit()).collect();
    assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [202, 202, 429], "{answers:?}");
    cancel_all(&server);
    drop(server);
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(crate::server::options(folder.path()));
    for _ in 0..3 {
        server.job(&json!({"prompt": "fire", "steps": 1}));
    }
    drop(server);
    let mut options = crate::server::options(folder.path());
    options.retention.jobs = 2;
    let server = TestServer::start(options);
    let begun = Instant::now();
    while server.get("/v1/jobs")["jobs"].as_array().unwrap().len() > 2 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", server.get("/v1/jobs"));
    }
}

#[test]
fn numbers_in_queries_have_limits() {
    let server = TestServer::new();
    for query in ["offset=18446744073709551615", "limit=-1", "offset=a"] {
        assert_eq!(server.send("GET", &format!("/v1/jobs?{query}"), None).0, 400, "{query}");
    }
    assert_eq!(server.get("/v1/jobs?offset=4294967295&limit=4294967295")["jobs"], json!([]));
}
