//! Requests that are refused.

use serde_json::json;

use super::{photo, url};
use crate::server::TestServer;

#[test]
fn wrong_requests_are_refused_with_a_sentence() {
    let server = TestServer::new();
    for (body, status, sentence) in [
        (json!({"sampler_name": "DPM adaptive"}), 404, "Sampler not found: expected one of DPM++ 2M"),
        (json!({"sampler_index": "Euler b"}), 404, "Sampler not found"),
        (json!({"scheduler": "beta"}), 404, "Scheduler not found"),
        (
            json!({"override_settings": {"sd_model_checkpoint": "x"}}),
            404,
            "Model not found: expected one of emoji, got x",
        ),
        (json!({"script_name": "X/Y/Z plot"}), 422, "Script 'X/Y/Z plot' not found"),
        (
            json!({"alwayson_scripts": {"ControlNet": {"args": [{"image": ""}]}}}),
            422,
            "always on script ControlNet",
        ),
        (json!({"restore_faces": true}), 400, "restore_faces: expected false"),
        (json!({"tiling": 1}), 400, "tiling: expected false"),
        (json!({"styles": ["anime"]}), 400, "styles: expected none"),
        (json!({"width": 100, "height": 64}), 400, "width: expected a multiple of 16"),
        (json!({"width": 0}), 400, "width: expected a multiple of 16"),
        (json!({"steps": 0}), 400, "steps: expected at least 1"),
        (json!({"steps": 10_000_000}), 400, "steps: expected 1 to"),
        (json!({"n_iter": 100, "batch_size": 100}), 400, "batch_size and n_iter: expected 1 to 64"),
        (json!({"n_iter": i64::MAX, "batch_size": i64::MAX}), 400, "n_iter: expected fewer images"),
        (json!({"cfg_scale": 1e30}), 400, "cfg_scale: expected a number"),
        (json!({"seed": -7}), 400, "seed: expected -1"),
        (json!({"subseed_strength": 2}), 400, "subseed_strength: expected a number in [0, 1]"),
        (json!({"prompt": "a <lora:ink:1>"}), 400, "loras: expected names of the server's (none), got ink"),
        (json!({"enable_hr": true, "hr_upscaler": "ESRGAN"}), 404, "Upscaler not found"),
        (json!({"enable_hr": true, "hr_scale": 0.5}), 400, "hr_scale: expected"),
        (
            json!({"enable_hr": true, "hr_resize_x": 64, "hr_resize_y": 128}),
            400,
            "hr_resize_x and hr_resize_y: expected",
        ),
        (
            json!({"enable_hr": true, "hr_sampler_name": "DDIM"}),
            400,
            "hr_sampler_name and hr_scheduler: expected",
        ),
        (
            json!({"enable_hr": true, "hr_scheduler": "Karras"}),
            400,
            "hr_sampler_name and hr_scheduler: expected",
        ),
        (json!({"infotext": "a cat"}), 400, "infotext: expected a last line"),
        (json!({"eta": 3, "sampler_name": "DDIM", "steps": 1}), 400, "eta: expected"),
    ] {
        let (got, answer) = server.post("/sdapi/v1/txt2img", &body);
        let detail = answer["detail"].as_str().unwrap_or_default();
        assert!(got == status && detail.starts_with(sentence), "{body}: {got} {answer}");
        assert!(answer["errors"].is_string() && answer["error"].is_string(), "{answer}");
    }
    for (body, field) in [
        (json!({"steps": "many"}), json!(["body", "steps"])),
        (json!({"width": [1]}), json!(["body", "width"])),
        (json!({"seed": 1e300}), json!(["body", "seed"])),
        (json!({"override_settings": 3}), json!(["body", "override_settings"])),
        (json!([1]), json!(["body"])),
    ] {
        let (status, answer) = server.post("/sdapi/v1/txt2img", &body);
        assert_eq!((status, &answer["detail"][0]["loc"]), (422, &field), "{body}: {answer}");
        assert!(answer["detail"][0]["msg"].is_string() && answer["detail"][0]["type"].is_string());
    }
    assert_eq!(server.send("POST", "/sdapi/v1/txt2img", None).0, 422);
    assert_eq!(server.send("GET", "/sdapi/v1/txt2img", None).0, 405);
    assert_eq!(server.send("GET", "/sdapi/v1/nothing", None).0, 404);
    let image = url(&photo(64, 64));
    for (body, status, sentence) in [
        (json!({}), 404, "Init image not found"),
        (json!({"init_images": null}), 404, "Init image not found"),
        (json!({"init_images": [null, ""]}), 404, "Init image not found"),
        (json!({"init_images": ["%%%"]}), 400, "init_images: expected base64"),
        (json!({"init_images": ["aGVsbG8="]}), 400, "init_images: expected a PNG"),
        (json!({"init_images": ["http://127.0.0.1/a.png"]}), 400, "init_images: expected base64, got a URL"),
        (json!({"init_images": [&image, &image]}), 400, "init_images: expected one image"),
        (json!({"init_images": [&image], "mask": "aGk="}), 400, "mask: expected a PNG"),
        (json!({"init_images": [&image], "resize_mode": 4}), 400, "resize_mode: expected 0 to 3"),
        (
            json!({"init_images": [&image], "width": 1_000_000, "height": 1_000_000}),
            400,
            "width and height: expected at most",
        ),
        (json!({"init_images": [&image], "width": -64}), 400, "width and height: expected at most"),
        (
            json!({"init_images": [&image], "denoising_strength": 1.5}),
            400,
            "denoising_strength: expected a number in [0, 1]",
        ),
        (
            json!({"init_images": [&image], "mask": &image, "inpainting_fill": 2}),
            400,
            "inpainting_fill: expected 0 or 1",
        ),
        (
            json!({"init_images": [&image], "mask": &image, "mask_blur": 1000}),
            400,
            "mask_blur_x: expected 0 to 64",
        ),
        (
            json!({"init_images": [&image], "width": 32, "resize_mode": 3}),
            400,
            "resize_mode: expected 0 to 2",
        ),
    ] {
        let (got, answer) = server.post("/sdapi/v1/img2img", &body);
        let detail = answer["detail"].as_str().unwrap_or_default();
        assert!(got == status && detail.starts_with(sentence), "{got} {answer}");
    }
}
