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
