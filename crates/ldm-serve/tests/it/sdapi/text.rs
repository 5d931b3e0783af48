//! `txt2img`, and what its images say of themselves.

use serde_json::json;

use super::{decoded, photo, pixels, url};
use crate::server::TestServer;

#[test]
fn an_image_has_the_pixels_of_the_own_api() {
    let server = TestServer::new();
    let (images, info) = server.images(
        "txt2img",
        &json!({
            "prompt": "red heart", "negative_prompt": "blue", "seed": 7, "steps": "4", "cfg_scale": 3, "n_iter": 2,
            "batch_size": null, "sampler_name": "DPM++ 2M Karras", "sampler_index": null, "eta": 1.0, "styles": [],
            "s_tmax": null, "subseed": -1, "unknown": {"a": 1}, "hr_upscaler": "Latent", "script_args": [],
            "alwayson_scripts": {"ADetailer": {"args": [false]}},
        }),
    );
    let own = json!({
        "prompt": "red heart", "negative_prompt": "blue", "seed": 7, "steps": 4, "guidance_scale": 3., "n": 2,
        "sampler": "dpmpp_2m", "spacing": "karras", "width": 64, "height": 64,
    });
    assert_eq!(images.len(), 2);
    assert!(pixels(&images[0]) == image::load_from_memory(&server.own(&own)).unwrap().into_rgb8());
    assert_eq!(info["all_seeds"], json!([7, 8]));
    assert_eq!((&info["sampler_name"], &info["width"]), (&json!("DPM++ 2M"), &json!(64)));
    assert_eq!(info["extra_generation_params"]["Schedule type"], "Karras");
    for key in ["all_prompts", "all_negative_prompts", "all_subseeds", "infotexts"] {
        assert_eq!(info[key].as_array().unwrap().len(), 2, "{key}");
    }
}

/// AUTOMATIC1111's parser: `KEY: VALUE` with keys of letters, blanks, `-` and `/`, and values without commas or in quotes.
#[test]
fn infotexts_are_read_as_the_web_ui_reads_them() {
    let server = TestServer::new();
    let (images, info) = server.images(
        "txt2img",
        &json!({"prompt": "a, b: c\nd", "negative_prompt": "e", "seed": 3, "steps": 2, "subseed": 5, "subseed_strength": 0.25}),
    );
    let text = info["infotexts"][0].as_str().unwrap();
    let (prompt, last) = text.rsplit_once('\n').unwrap();
    assert_eq!(prompt, "a, b: c\nd\nNegative prompt: e");
    for pair in last.split(", ") {
        let (key, value) = pair.split_once(": ").unwrap();
        assert!(key.len() > 1 && key.chars().all(|c| c.is_alphanumeric() || " -/_".contains(c)), "{pair}");
        assert!(!value.is_empty() && !value.contains(','), "{pair}");
    }
    let read = server.sdapi("png-info", &json!({"image": images[0]}));
    assert_eq!(read["info"], text);
    let parameters = &read["parameters"];
    for (key, value) in
        [("Steps", "2"), ("Seed", "3"), ("Size-1", "64"), ("Variation seed", "5"), ("Clip skip", "1")]
    {
        assert_eq!(parameters[key], value, "{key}: {parameters}");
    }
    assert_eq!((&parameters["Prompt"], &parameters["Negative prompt"]), (&json!("a, b: c\nd"), &json!("e")));
    let body = json!({"steps": 2, "sampler_name": "DPM++ 2M SDE", "scheduler": "exponential"});
    let (other, info) = server.images("txt2img", &body);
    let names = "Steps: 2, Sampler: DPM++ 2M SDE, Schedule type: Exponential, ";
    assert!(info["infotexts"][0].as_str().unwrap().contains(names), "{info}");
    let parameters = server.sdapi("png-info", &json!({"image": other[0]}))["parameters"].clone();
    assert_eq!(
        (&parameters["Sampler"], &parameters["Schedule type"]),
        (&json!("DPM++ 2M SDE"), &json!("Exponential"))
    );
    // The text alone makes the same image again; what a request says itself counts more.
    let (again, _) = server.images("txt2img", &json!({"infotext": text, "cfg_scale": null}));
    assert!(again[0] == images[0]);
    let body = json!({"infotext": text, "steps": 3, "negative_prompt": "", "sampler_name": "Euler a"});
    let (_, info) = server.images("txt2img", &body);
    let expected = [("steps", json!(3)), ("negative_prompt", json!("")), ("sampler_name", json!("Euler a"))];
    for (key, value) in expected.into_iter().chain([("seed", json!(3)), ("prompt", json!("a, b: c\nd"))]) {
        assert_eq!(info[key], value, "{key}");
    }
    assert!(info["infotexts"][0].as_str().unwrap().contains("Steps: 3, Sampler: Euler a, CFG scale: "));
    // In other formats it is in the EXIF data.
    for format in ["jpg", "webp"] {
        let settings = json!({"samples_format": format});
        let (other, _) = server.images("txt2img", &json!({"infotext": text, "override_settings": settings}));
        assert_ne!(&decoded(&other[0])[..4], b"\x89PNG", "{format}");
        assert_eq!(server.sdapi("png-info", &json!({"image": other[0]}))["info"], text, "{format}");
    }
    assert_eq!(server.sdapi("png-info", &json!({"image": url(&photo(8, 8))}))["info"], "");
    assert_eq!(server.sdapi("png-info", &json!({"image": ""}))["info"], "");
}

#[test]
fn every_sampler_of_the_list_samples() {
    let server = TestServer::new();
    let samplers = server.get("/sdapi/v1/samplers");
    for sampler in samplers.as_array().unwrap() {
        let name = &sampler["name"];
        let (images, info) =
            server.images("txt2img", &json!({"sampler_name": name, "steps": 2, "eta": 1.0, "seed": 1}));
        assert_eq!((images.len(), &info["sampler_name"]), (1, name));
    }
    let schedulers = server.get("/sdapi/v1/schedulers");
    for scheduler in schedulers.as_array().unwrap() {
        for name in [&scheduler["name"], &scheduler["label"]] {
            let body = json!({"sampler_name": "Euler a", "scheduler": name, "steps": 4, "seed": 1});
            let (status, answer) = server.post("/sdapi/v1/txt2img", &body);
            // That spacing is one of Stable Diffusion v1 alone.
            let refused = scheduler["name"] == "align_your_steps" && status == 400;
            assert!(status == 200 || refused, "{name}: {answer}");
        }
    }
}

#[test]
fn a_second_pass_enlarges() {
    let server = TestServer::new();
    for body in [
        json!({"enable_hr": true, "hr_scale": 1.5, "denoising_strength": 0.5, "hr_second_pass_steps": 2}),
        json!({"enable_hr": true, "hr_resize_x": 96, "hr_resize_y": 96, "hr_upscaler": "Latent"}),
        json!({"enable_hr": true, "hr_resize_x": 96, "hr_scale": 4, "scheduler": "karras", "hr_scheduler": "Karras", "hr_sampler_name": "Euler"}),
        json!({"enable_hr": true, "firstphase_width": 64, "firstphase_height": 64, "width": 96, "height": 96}),
    ] {
        let mut all = json!({"prompt": "cat", "steps": 3, "seed": 1});
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let (images, info) = server.images("txt2img", &all);
        assert_eq!(pixels(&images[0]).dimensions(), (96, 96), "{body}");
        assert_eq!(info["extra_generation_params"]["Hires upscale"], 1.5, "{body}");
    }
}
