//! Requests and clients that are wrong, slow or gone.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ldm_data::Rng;
use serde_json::{Value, json};

use crate::server::{TestServer, agent, memory};

/// Good requests, of which the mutations are made.
fn good() -> Vec<(&'static str, Value)> {
    let png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==";
    vec![
        (
            "/v1/jobs",
            json!({"prompt": "fire", "steps": 1, "seed": 3, "n": 1, "width": 64, "height": 64,
            "sampler": "ddim", "guidance_scale": 2.5, "negative_prompt": "cat"}),
        ),
        (
            "/v1/jobs",
            json!({"prompt": "fire", "steps": 1, "image": png, "strength": 0.5,
            "variation": {"seed": 1, "strength": 0.5}, "loras": [{"name": "x", "weight": 1}],
            "layout": [{"label": "a", "box": [0, 0, 1, 1]}], "hires": {"scale": 2}}),
        ),
        (
            "/sdapi/v1/txt2img",
            json!({"prompt": "fire", "steps": 1, "width": 64, "height": 64, "cfg_scale": 7,
            "sampler_name": "Euler a", "scheduler": "automatic", "seed": -1, "n_iter": 1, "batch_size": 1,
            "override_settings": {"sd_model_checkpoint": "emoji"}}),
        ),
        (
            "/sdapi/v1/img2img",
            json!({"prompt": "fire", "steps": 1, "width": 64, "height": 64, "init_images": [png],
            "mask": png, "denoising_strength": 0.5, "resize_mode": 1, "mask_blur": 0}),
        ),
        ("/sdapi/v1/png-info", json!({"image": png})),
        (
            "/sdapi/v1/extra-single-image",
            json!({"image": png, "upscaling_resize": 2, "upscaler_1": "Lanczos"}),
        ),
        ("/sdapi/v1/options", json!({"sd_model_checkpoint": "emoji", "samples_format": "png"})),
        (
            "/v1/images/generations",
            json!({"prompt": "fire", "n": 1, "size": "64x64", "steps": 1, "model": "emoji",
            "response_format": "b64_json", "output_format": "png"}),
        ),
    ]
}

/// Replaces, adds or removes a value somewhere in `value`.
fn mutate(value: &mut Value, rng: &mut Rng) {
    let wild = || {
        [
            json!(null),
            json!(-1),
            json!(0),
            json!(1e308),
            json!(u64::MAX),
            json!(0.1),
            json!(true),
            json!(""),
            json!("x".repeat(30_000)),
            json!("\u{0}"),
            json!("../../etc/passwd"),
            json!("http://127.0.0.1/"),
            json!([]),
            json!([[[[]]]]),
            json!({}),
            json!({"a": {"b": 1}}),
            json!("NaN"),
            json!("<script>"),
            json!("💥"),
        ]
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let key = fields.keys().nth(rng.below(fields.len() as u64) as usize).expect("one").clone();
            match rng.below(8) {
                0 => {
                    fields.remove(&key);
                }
                1 => {
                    fields.insert("unknown".into(), json!(1));
                }
                _ => mutate(&mut fields[&key], rng),
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let index = rng.below(items.len() as u64) as usize;
            mutate(&mut items[index], rng);
        }
        other => *other = wild()[rng.below(19) as usize].clone(),
    }
}

fn send(server: &TestServer, path: &str, body: &[u8]) -> u16 {
    let url = format!("{}{path}", server.url);
    let answer = agent().post(url).header("content-type", "application/json").send(body);
    answer.expect("an answer").status().as_u16()
}

/// Mutations of good requests: each is answered by success or an error of the client.
#[test]
fn malformed_requests_are_refused() {
    let count = crate::load::long().unwrap_or(400);
    let server = TestServer::with(|options| {
        options.limits.steps = 2;
        options.limits.images = 2;
        options.limits.pixels = 128 * 128;
    });
    let (mut rng, requests) = (Rng::of(&[17]), good());
    let mut refused = 0;
    for number in 0..count {
        let (path, mut value) = requests[rng.below(requests.len() as u64) as usize].clone();
        for _ in 0..=rng.below(3) {
            mutate(&mut value, &mut rng);
        }
        let mut body = value.to_string().into_bytes();
        match rng.below(6) {
            0 => body.truncate(rng.below(body.len() as u64) as usize),
            1 if !body.is_empty() => {
                let at = rng.below(body.len() as u64) as usize;
                body[at] = rng.below(256) as u8;
            }
            _ => {}
        }
        let status = send(&server, path, &body);
        let text = String::from_utf8_lossy(&body);
        assert!(
            status < 500 && status != 404 || status == 404 && text.contains('"'),
            "{number}: {path} {status}: {text}"
        );
        refused += usize::from(status >= 400);
    }
    assert!(refused > count / 3, "{refused} of {count} were refused");
    assert_eq!(server.send("GET", "/health", None).0, 200);
    let job = server.job(&json!({"prompt": "fire", "steps": 1}));
    assert_eq!(job["state"], "done");
}

#[test]
fn bodies_and_images_beyond_the_limits_are_refused() {
    let server = TestServer::with(|options| options.limits.body = 1 << 20);
    let body = json!({"prompt": "x".repeat(64 << 20)}).to_string();
    let sent = agent()
        .post(format!("{}/v1/jobs", server.url))
        .header("content-type", "application/json")
        .send(&body);
    // The server closes the connection while the client still sends.
    assert!(sent.is_err() || sent.is_ok_and(|answer| answer.status() == 413));
    assert_eq!(server.get("/v1/jobs")["jobs"], json!([]));
    // 50,000 x 50,000 pixels in 2 KB: the header is refused before anything is decoded.
    let mut bomb = Vec::new();
    let mut encoder = png::Encoder::new(&mut bomb, 50_000, 50_000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, &[0; 1000]).unwrap();
    let image = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bomb);
    let (status, answer) = server.post("/v1/jobs", &json!({"prompt": "x", "image": image}));
    assert_eq!(status, 413, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().ends_with("got 50000x50000"), "{answer}");
    let (status, answer) = server.post("/sdapi/v1/png-info", &json!({"image": image}));
    assert!((200..500).contains(&status), "{answer}");
}

#[test]
fn slow_clients_are_dropped_and_others_served() {
    let server = TestServer::with(|options| options.limits.read = Duration::from_millis(500));
    let address = server.url.strip_prefix("http://").unwrap();
    let mut head = TcpStream::connect(address).unwrap();
    head.write_all(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    let mut body = TcpStream::connect(address).unwrap();
    let start = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
    body.write_all(start.as_bytes()).unwrap();
    assert_eq!(server.send("GET", "/health", None).0, 200);
    let begun = Instant::now();
    for (name, stream) in [("head", &mut head), ("body", &mut body)] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{name}: {text}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn idle_connections_leave_room_for_others() {
    let server = TestServer::with(|options| {
        options.limits.connections = 300;
        options.limits.read = Duration::from_secs(2);
    });
    let address = server.url.strip_prefix("http://").unwrap();
    let idle: Vec<_> = (0..290).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(server.send("GET", "/health", None).0, 200);
    // They are closed after the time in which a head must come, and so make room.
    std::thread::sleep(Duration::from_secs(3));
    let more: Vec<_> = (0..290).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(server.send("GET", "/health", None).0, 200);
    drop((idle, more));
}

#[test]
fn a_job_outlives_its_connection() {
    let server = TestServer::new();
    let address = server.url.strip_prefix("http://").unwrap();
    let body = json!({"prompt": "fire", "steps": 30, "width": 64, "height": 64}).to_string();
    let mut client = TcpStream::connect(address).unwrap();
    write!(
        client,
        "POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    while server.get("/v1/jobs")["jobs"] == json!([]) {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(client);
    let id = server.get("/v1/jobs")["jobs"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.end(&id)["state"], "done");
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = TestServer::with(|options| options.limits.queue = 2);
    let submit = || server.post("/v1/jobs", &json!({"prompt": "fire", "steps": 500}));
    let answers: Vec<_> = (0..5).map(|_| submit()).collect();
    let (status, answer) = answers.last().unwrap();
    assert_eq!((*status, &answer["error"]["code"]), (429, &json!("busy")), "{answer}");
    for (_, job) in answers.iter().filter(|(status, _)| *status == 202) {
        server.send("POST", &format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap()), None);
    }
}

#[test]
fn keys_origins_and_hosts_are_checked() {
    let server = TestServer::with(|options| {
        options.access.keys = vec!["secret".into()];
        options.access.origins = vec!["https://ui.example".into()];
    });
    let get = |path: &str, headers: &[(&str, &str)]| {
        let mut request = agent().get(format!("{}{path}", server.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.call().unwrap()
    };
    assert_eq!(get("/v1/jobs", &[]).status(), 401);
    assert_eq!(get("/", &[]).headers()["www-authenticate"], "Basic realm=\"ldm\", charset=\"UTF-8\"");
    assert_eq!(get("/health", &[]).status(), 200);
    let key = ("authorization", "Bearer secret");
    let answer = get("/v1/jobs", &[key, ("origin", "https://ui.example")]);
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://ui.example");
    assert_eq!(get("/v1/jobs", &[key, ("origin", "https://evil.example")]).status(), 403);
    drop(server);
    let open = TestServer::new();
    let rebound = agent().get(format!("{}/v1/jobs", open.url)).header("host", "evil.example").call().unwrap();
    assert_eq!(rebound.status(), 403);
}

/// Sends a head, and returns the connection.
fn sent(server: &TestServer, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    write!(stream, "{head}\r\nHost: localhost\r\nContent-Type: application/json\r\n").unwrap();
    stream
}

#[test]
fn a_body_of_a_gigabyte_is_refused_early() {
    let server = TestServer::with(|options| options.limits.body = 1 << 20);
    for path in ["/v1/jobs", "/sdapi/v1/txt2img", "/v1/images/edits", "/v1/parameters"] {
        // By its length, before any of it is sent.
        let mut stream = sent(&server, &format!("POST {path} HTTP/1.1"));
        stream.write_all(b"Content-Length: 1073741824\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{path}: {answer}");
        assert!(answer.contains("expected a body of at most 1048576 bytes, got 1073741824"), "{answer}");
        // Without a length, as soon as it is too long.
        let mut stream = sent(&server, &format!("POST {path} HTTP/1.1"));
        stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n").unwrap();
        let (before, mut megabytes) = (memory("VmRSS"), 0);
        let chunk =
            [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
        while megabytes < 1024 && stream.write_all(&chunk).is_ok() {
            megabytes += 1;
        }
        assert!(megabytes < 64, "{path}: {megabytes} MB were read");
        assert!(memory("VmRSS") < before + 64., "{path}: {before} MB, then {} MB", memory("VmRSS"));
    }
    assert_eq!(server.get("/v1/jobs")["jobs"], json!([]));
}

#[test]
fn clients_that_leave_a_stream_leave_nothing_behind() {
    let server = TestServer::new();
    let body = json!({"prompt": "fire", "steps": 300, "stream": true, "partial_images": 3});
    let (_, job) = server.post("/v1/jobs", &json!({"prompt": "fire", "steps": 300}));
    let id = job["id"].as_str().unwrap().to_owned();
    let mut streams = vec![sent(&server, "GET /v1/events HTTP/1.1")];
    streams.extend((0..20).map(|_| sent(&server, &format!("GET /v1/jobs/{id}/events HTTP/1.1"))));
    for stream in &mut streams {
        stream.write_all(b"\r\n").unwrap();
    }
    let body = body.to_string();
    let mut stream = sent(&server, "POST /v1/images/generations HTTP/1.1");
    write!(stream, "Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    streams.push(stream);
    for stream in &mut streams {
        let mut start = [0; 12];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    }
    drop(streams);
    let jobs = server.get("/v1/jobs");
    for job in jobs["jobs"].as_array().unwrap() {
        assert_eq!(server.end(job["id"].as_str().unwrap())["state"], "done");
    }
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 2);
    // Only the connection that asks is left.
    let begun = Instant::now();
    loop {
        let (_, metrics) = server.send("GET", "/metrics", None);
        if metrics.as_str().unwrap().lines().any(|line| line == "ldm_connections 1") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{metrics}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
