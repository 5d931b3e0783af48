//! Lists and options.

use serde_json::{Value, json};

use super::decoded;
use crate::server::TestServer;

#[test]
fn lists_have_the_forms_that_clients_read() {
    let server = TestServer::new();
    let of = |route: &str| server.get(&format!("/sdapi/v1/{route}"));
    for route in [
        "sd-vae",
        "hypernetworks",
        "face-restorers",
        "realesrgan-models",
        "prompt-styles",
        "script-info",
        "extensions",
        "loras",
    ] {
        assert_eq!(of(route), json!([]), "{route}");
    }
    assert_eq!(of("scripts"), json!({"txt2img": [], "img2img": []}));
    assert_eq!(of("embeddings"), json!({"loaded": {}, "skipped": {}}));
    let model = &of("sd-models")[0];
    assert_eq!(
        (&model["title"], &model["model_name"], &model["hash"]),
        (&json!("emoji"), &json!("emoji"), &Value::Null)
    );
    let upscalers = of("upscalers");
    let names: Vec<_> =
        upscalers.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["None", "Lanczos", "Nearest"]);
    assert_eq!(of("latent-upscale-modes"), json!([{"name": "Latent"}]));
    let samplers = of("samplers");
    let find =
        |name: &str| samplers.as_array().unwrap().iter().find(|item| item["name"] == name).unwrap().clone();
    assert_eq!(find("DPM++ 2M")["options"]["scheduler"], "karras");
    assert!(find("Euler a")["aliases"].as_array().unwrap().contains(&json!("k_euler_a")));
    let memory = of("memory");
    assert!(memory["ram"]["total"].as_u64().unwrap() > memory["ram"]["free"].as_u64().unwrap());
    assert_eq!(of("cmd-flags")["api"], true);
    for (method, status) in [("POST", 404), ("GET", 404)] {
        let body = json!({"image": "", "model": "clip"});
        assert_eq!(server.send(method, "/sdapi/v1/interrogate", Some(&body)).0, status);
    }
    for route in ["refresh-checkpoints", "refresh-loras", "refresh-vae", "skip"] {
        assert_eq!(server.send("POST", &format!("/sdapi/v1/{route}"), None), (200, Value::Null), "{route}");
    }
    for route in ["unload-checkpoint", "reload-checkpoint", "interrupt"] {
        assert_eq!(server.send("POST", &format!("/sdapi/v1/{route}"), None), (200, json!({})), "{route}");
    }
}

#[test]
fn options_are_given_out_and_taken_back() {
    let server = TestServer::with(|options| options.models.push("second=emoji".into()));
    let before = server.get("/sdapi/v1/options");
    assert_eq!(before["sd_model_checkpoint"], "emoji");
    assert_eq!(server.sdapi("options", &before), Value::Null);
    assert_eq!(server.get("/sdapi/v1/options"), before);
    for name in ["second [0123456789]", "SECOND", " second"] {
        server.sdapi("options", &json!({"sd_model_checkpoint": "emoji"}));
        server.sdapi("options", &json!({"sd_model_checkpoint": name, "of_another_version": [1]}));
        assert_eq!(server.get("/sdapi/v1/options")["sd_model_checkpoint"], "second", "{name}");
    }
    // For one request alone.
    let settings =
        json!({"sd_model_checkpoint": "emoji", "CLIP_stop_at_last_layers": 2, "sd_vae": "Automatic"});
    let (_, info) = server.images("txt2img", &json!({"steps": 1, "override_settings": settings}));
    assert_eq!(info["sd_model_name"], "emoji");
    assert!(info["notes"][0].as_str().unwrap().starts_with("CLIP_stop_at_last_layers"), "{info}");
    let (_, info) = server.images("txt2img", &json!({"steps": 1}));
    assert_eq!(info["sd_model_name"], "second");
    server.sdapi("options", &json!({"samples_format": "jpg", "jpeg_quality": 90.0}));
    let (images, _) = server.images("txt2img", &json!({"steps": 1}));
    assert_eq!(&decoded(&images[0])[..3], b"\xff\xd8\xff");
    for (key, value, status) in [
        ("sd_model_checkpoint", json!("sdxl"), 404),
        ("sd_vae", json!("other.pt"), 404),
        ("samples_format", json!("avif"), 400),
        ("CLIP_stop_at_last_layers", json!(0), 400),
        ("show_progress_every_n_steps", json!("often"), 400),
        ("live_previews_enable", json!("yes"), 400),
    ] {
        let (got, answer) = server.post("/sdapi/v1/options", &json!({key: value}));
        assert_eq!(got, status, "{key}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("expected"), "{answer}");
    }
}
