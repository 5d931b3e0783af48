//! OpenAI's images API.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, Rgb, RgbImage, Rgba, RgbaImage};
use ldm_core::image as images;
use serde_json::{Value, json};

use crate::server::{TestServer, agent};

/// An answer with its headers.
struct Reply {
    status: u16,
    retry: Option<String>,
    request_id: Option<String>,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

fn post(server: &TestServer, path: &str, kind: &str, body: &[u8]) -> Reply {
    let request = agent().post(format!("{}{path}", server.url)).content_type(kind);
    let mut answer = request.send(body).unwrap();
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (retry, request_id) = (header("x-should-retry"), header("x-request-id"));
    Reply {
        status: answer.status().as_u16(),
        retry,
        request_id,
        text: answer.body_mut().read_to_string().unwrap(),
    }
}

fn generate(server: &TestServer, body: &Value) -> Reply {
    post(server, "/v1/images/generations", "application/json", body.to_string().as_bytes())
}

/// Sends a form; a part with a name of a file is one.
fn upload(server: &TestServer, path: &str, parts: &[(&str, &[u8])]) -> Reply {
    let mut body = Vec::new();
    for (name, value) in parts {
        let file = if name.starts_with("image") || *name == "mask" { "; filename=\"a.png\"" } else { "" };
        body.extend(
            format!("--cut\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes(),
        );
        body.extend_from_slice(value);
        body.extend(b"\r\n");
    }
    body.extend(b"--cut--\r\n");
    post(server, path, "multipart/form-data; boundary=cut", &body)
}

fn decoded(item: &Value) -> Vec<u8> {
    STANDARD.decode(item["b64_json"].as_str().unwrap()).unwrap()
}

fn photo() -> RgbImage {
    RgbImage::from_fn(64, 64, |x, y| Rgb([(x * 4) as u8, (y * 4) as u8, 90]))
}

fn png(image: RgbImage) -> Vec<u8> {
    images::png(&DynamicImage::ImageRgb8(image), &[])
}

/// A mask whose left part is transparent.
fn mask(width: u32, columns: u32) -> Vec<u8> {
    let pixel = |x| Rgba([0, 0, 0, if x < columns { 0 } else { 255 }]);
    images::png(&DynamicImage::ImageRgba8(RgbaImage::from_fn(width, 64, |x, _| pixel(x))), &[])
}

/// Names and data of events.
fn events(text: &str) -> Vec<(String, Value)> {
    let blocks = text.split("\n\n").filter(|block| block.contains("data: "));
    let read = blocks.map(|block| {
        let line = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        let data = line("data: ");
        let data = if data == "[DONE]" { json!(data) } else { serde_json::from_str(data).unwrap() };
        (line("event: ").to_owned(), data)
    });
    read.collect()
}

#[test]
fn generations_have_the_bytes_of_jobs() {
    let server = TestServer::new();
    let job = server.job(&json!({"prompt": "red heart", "seed": 7, "steps": 3, "n": 2, "guidance_scale": 2,
        "sampler": "euler", "spacing": "karras", "width": 64, "height": 64}));
    let expected: Vec<_> = (0..2)
        .map(|index| server.bytes(&format!("/v1/jobs/{}/images/{index}", job["id"].as_str().unwrap())))
        .collect();
    let body = json!({"prompt": "red heart", "seed": 7, "num_inference_steps": 3, "n": 2, "cfg_scale": 2,
        "sampler": "euler", "scheduler": "karras", "size": "64x64", "quality": "high", "user": "u", "model": "emoji"});
    let reply = generate(&server, &body);
    assert_eq!(reply.status, 200, "{}", reply.text);
    let answer = reply.json();
    assert_eq!(
        (&answer["size"], &answer["output_format"], &answer["quality"]),
        (&json!("64x64"), &json!("png"), &json!("high"))
    );
    assert_eq!(answer["usage"]["input_tokens_details"]["text_tokens"], 0);
    assert!(
        answer["created"].as_u64().unwrap() > 1_700_000_000 && answer["created"].as_u64().unwrap() < 1 << 34
    );
    for (index, expected) in expected.iter().enumerate() {
        assert!(decoded(&answer["data"][index]) == *expected, "image {index}");
        assert_eq!(answer["data"][index]["seed"], 7 + index);
    }
    let job = server.get(&format!("/v1/jobs/{}", reply.request_id.unwrap()));
    assert_eq!((&job["origin"], &job["state"]), (&json!("openai"), &json!("done")));

    let mut by_url = body.clone();
    by_url["response_format"] = json!("url");
    let url = generate(&server, &by_url).json()["data"][1]["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&server.url), "{url}");
    assert!(server.bytes(&url[server.url.len()..]) == expected[1]);
}

#[test]
fn formats_are_followed() {
    let server = TestServer::new();
    for (format, magic) in [("jpeg", &b"\xff\xd8\xff"[..]), ("webp", b"RIFF"), ("png", b"\x89PNG")] {
        let body = json!({"prompt": "", "steps": 1, "output_format": format, "output_compression": 0});
        let answer = generate(&server, &body).json();
        assert!(decoded(&answer["data"][0]).starts_with(magic), "{format}");
        assert_eq!(answer["output_format"], format);
    }
    let url = json!({"prompt": "", "steps": 1, "output_format": "webp", "response_format": "url"});
    let url = generate(&server, &url).json()["data"][0]["url"].as_str().unwrap().to_owned();
    assert!(server.bytes(&url[server.url.len()..]).starts_with(b"RIFF"), "{url}");
}

#[test]
fn streams_have_partial_images() {
    let server = TestServer::new();
    let body = json!({"prompt": "sun", "steps": 200, "seed": 1, "stream": true, "partial_images": 2, "size": "64x64"});
    let reply = generate(&server, &body);
    assert_eq!(reply.status, 200);
    let events = events(&reply.text);
    assert_eq!(events.last().unwrap().1, "[DONE]");
    let (name, last) = &events[events.len() - 2];
    assert_eq!(
        (name.as_str(), &last["type"]),
        ("image_generation.completed", &json!("image_generation.completed"))
    );
    assert_eq!(last["usage"]["total_tokens"], 0);
    let partial = &events[..events.len() - 2];
    assert!((1..=2).contains(&partial.len()), "{} partial images", partial.len());
    for (index, (name, data)) in partial.iter().enumerate() {
        assert_eq!((name.as_str(), &data["type"]), ("image_generation.partial_image", &json!(name)));
        assert_eq!(data["partial_image_index"], index);
        assert_eq!(images::dimensions(&decoded(data)).unwrap(), [64, 64]);
        assert!(decoded(data) != decoded(last));
        for key in ["created_at", "size", "quality", "background", "output_format"] {
            assert!(!data[key].is_null() && !last[key].is_null(), "{key}");
        }
    }
    let job = server.job(&json!({"prompt": "sun", "steps": 200, "seed": 1}));
    assert!(decoded(last) == server.bytes(&format!("/v1/jobs/{}/images/0", job["id"].as_str().unwrap())));
}

#[test]
fn a_job_outlives_its_stream_and_a_canceled_one_ends_it_with_an_error() {
    let server = TestServer::new();
    let body = json!({"prompt": "sun", "steps": 1000, "n": 2, "stream": true}).to_string();
    let url = format!("{}/v1/images/generations", server.url);
    let start = || agent().post(&url).content_type("application/json").send(body.as_bytes()).unwrap();
    let id = |headers: &ureq::http::HeaderMap| headers["x-request-id"].to_str().unwrap().to_owned();
    let answer = start();
    let gone = id(answer.headers());
    drop(answer);
    let mut answer = start();
    let canceled = id(answer.headers());
    let state = server.get(&format!("/v1/jobs/{gone}"))["state"].clone();
    assert!(state == "running" || state == "queued", "{state}");
    assert_eq!(server.post(&format!("/v1/jobs/{canceled}/cancel"), &json!({})).0, 200);
    let events = events(&answer.body_mut().read_to_string().unwrap());
    let [.., (name, error), (_, done)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((name.as_str(), done), ("error", &json!("[DONE]")));
    assert_eq!(
        (&error["error"]["code"], &error["error"]["message"]),
        (&json!("canceled"), &json!("the job was canceled"))
    );
    server.post(&format!("/v1/jobs/{gone}/cancel"), &json!({}));
    server.end(&gone);
}

#[test]
fn edits_change_the_transparent_part() {
    let server = TestServer::new();
    let parts: [(&str, &[u8]); 6] = [
        ("image[]", &png(photo())),
        ("mask", &mask(64, 32)),
        ("prompt", b"red heart"),
        ("steps", b"4"),
        ("seed", b"3"),
        ("quality", b""),
    ];
    let reply = upload(&server, "/v1/images/edits", &parts);
    assert_eq!(reply.status, 200, "{}", reply.text);
    let edited = images::decode(&decoded(&reply.json()["data"][0])).unwrap();
    let differs = |x: u32, y: u32| edited.get_pixel(x, y) != photo().get_pixel(x, y);
    assert!((32..64).all(|x| (0..64).all(|y| !differs(x, y))), "the opaque part");
    let changed = (0..32).flat_map(|x| (0..64).map(move |y| (x, y))).filter(|(x, y)| differs(*x, *y)).count();
    assert!(changed > 32 * 64 / 2, "{changed} pixels of the transparent part");

    let streamed = [&parts[..], &[("stream", b"true")]].concat();
    let events = events(&upload(&server, "/v1/images/edits", &streamed).text);
    assert_eq!(events[0].0, "image_edit.completed");
    assert_eq!(images::decode(&decoded(&events[0].1)).unwrap(), edited);
}

#[test]
fn edits_without_a_mask_and_variations_start_from_the_image() {
    let server = TestServer::new();
    let image = png(photo());
    let same =
        json!({"prompt": "sun", "steps": 4, "seed": 3, "image": STANDARD.encode(&image), "strength": 0.5});
    let parts: [(&str, &[u8]); 5] =
        [("image", &image), ("prompt", b"sun"), ("steps", b"4"), ("seed", b"3"), ("input_fidelity", b"high")];
    for (path, prompt) in [("/v1/images/edits", "sun"), ("/v1/images/variations", "")] {
        let mut same = same.clone();
        same["prompt"] = json!(prompt);
        let strength: (&str, &[u8]) = ("strength", b"0.5");
        let reply = upload(&server, path, &[&parts[..], &[strength]].concat());
        assert_eq!(reply.status, 200, "{}", reply.text);
        let job = server.job(&same);
        let expected = server.bytes(&format!("/v1/jobs/{}/images/0", job["id"].as_str().unwrap()));
        assert!(decoded(&reply.json()["data"][0]) == expected, "{path}");
    }
    let by_fidelity = upload(&server, "/v1/images/edits", &parts).request_id.unwrap();
    assert_eq!(server.get(&format!("/v1/jobs/{by_fidelity}"))["request"]["strength"], 0.5);
}

#[test]
fn wrong_generations_are_refused_with_their_field() {
    let server = TestServer::new();
    for (body, status, param) in [
        (json!({}), 400, "prompt"),
        (json!({"prompt": ["a"]}), 400, "prompt"),
        (json!({"prompt": "a", "n": 0}), 400, "n"),
        (json!({"prompt": "a", "n": 11}), 400, "n"),
        (json!({"prompt": "a", "n": "2"}), 400, "n"),
        (json!({"prompt": "a", "size": "large"}), 400, "size"),
        (json!({"prompt": "a", "size": "60x64"}), 400, "size"),
        (json!({"prompt": "a", "size": "65536x65536"}), 400, "size"),
        (json!({"prompt": "a", "model": "dall-e-3"}), 404, "model"),
        (json!({"prompt": "a", "output_format": "gif"}), 400, "output_format"),
        (json!({"prompt": "a", "output_compression": 101}), 400, "output_compression"),
        (json!({"prompt": "a", "partial_images": 4, "stream": true}), 400, "partial_images"),
        (json!({"prompt": "a", "stream": true, "response_format": "url"}), 400, "response_format"),
        (json!({"prompt": "a", "stream": true, "steps": 0}), 400, "steps"),
        (json!({"prompt": "a", "scheduler": "x"}), 400, "scheduler"),
        (json!({"prompt": "a", "strength": 0.5}), 400, "strength"),
    ] {
        let reply = generate(&server, &body);
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status, &error["param"]), (status, &json!(param)), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().starts_with(&format!("{param}: ")), "{error}");
        assert_eq!(
            (&error["type"], reply.retry.as_deref()),
            (&json!("invalid_request_error"), Some("false"))
        );
    }
    let known = generate(&server, &json!({"prompt": "a", "model": "gpt-image-1"})).json();
    assert_eq!(known["error"]["message"], "model: expected one of emoji, got gpt-image-1");
    assert_eq!(post(&server, "/v1/images/generations", "application/json", b"{").status, 400);
    assert_eq!(server.get("/v1/jobs")["jobs"], json!([]));
}

#[test]
fn wrong_forms_are_refused_with_their_field() {
    let server = TestServer::new();
    let image = png(photo());
    let image: (&str, &[u8]) = ("image", &image);
    let prompt: (&str, &[u8]) = ("prompt", b"a");
    let (small, opaque) = (mask(32, 8), mask(64, 0));
    for (parts, param) in [
        (vec![prompt], "image"),
        (vec![prompt, image, image], "image"),
        (vec![prompt, ("image", b"text")], "image"),
        (vec![image], "prompt"),
        (vec![prompt, image, ("mask", &small)], "mask"),
        (vec![prompt, image, ("mask", &opaque)], "mask"),
        (vec![prompt, image, ("mask", image.1)], "mask"),
        (vec![prompt, image, ("n", b"x")], "n"),
        (vec![prompt, image, ("n", b"11")], "n"),
        (vec![prompt, image, ("seed", b"1"), ("seed", b"2")], "seed"),
        (vec![prompt, image, ("user", b"\xff")], "user"),
        (vec![prompt, image, ("input_fidelity", b"x")], "input_fidelity"),
    ] {
        let reply = upload(&server, "/v1/images/edits", &parts);
        let error = reply.json()["error"].clone();
        assert_eq!((reply.status, &error["param"]), (400, &json!(param)), "{error}");
        assert_eq!(reply.retry.as_deref(), Some("false"));
    }
    let broken = b"--cut\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\nno end";
    for (kind, body) in [
        ("multipart/form-data; boundary=cut", &broken[..]),
        ("multipart/form-data", broken),
        ("application/json", b"{}"),
    ] {
        let reply = post(&server, "/v1/images/edits", kind, body);
        assert_eq!((reply.status, reply.retry.as_deref()), (400, Some("false")), "{kind}: {}", reply.text);
    }
    assert_eq!(server.get("/v1/jobs")["jobs"], json!([]));
}
