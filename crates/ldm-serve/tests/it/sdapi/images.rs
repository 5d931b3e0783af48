//! `img2img` and enlarged images.

use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use super::{mask, photo, pixels, url};
use crate::server::TestServer;

#[test]
fn an_initial_image_is_used() {
    let server = TestServer::new();
    let image = url(&photo(64, 64));
    let body = json!({"init_images": [image], "prompt": "cat", "seed": 4, "steps": 6, "denoising_strength": 0.5, "include_init_images": true});
    let answer = server.sdapi("img2img", &body);
    let own = json!({
        "image": image, "prompt": "cat", "seed": 4, "steps": 6, "strength": 0.5, "sampler": "euler", "guidance_scale": 7.,
    });
    assert!(pixels(&answer["images"][0]) == image::load_from_memory(&server.own(&own)).unwrap().into_rgb8());
    assert_eq!(answer["parameters"]["init_images"][0], image);
    assert_eq!(answer["parameters"]["denoising_strength"], 0.5);
    let plain = image.strip_prefix("data:image/png;base64,").unwrap();
    let again = server.sdapi(
        "img2img",
        &json!({"init_images": [plain], "prompt": "cat", "seed": 4, "steps": 6, "denoising_strength": 0.5}),
    );
    assert_eq!(again["images"], answer["images"]);
    assert_eq!(again["parameters"]["init_images"], Value::Null);
    for mode in 0..3 {
        let body = json!({"init_images": [url(&photo(100, 40))], "resize_mode": mode, "width": 48, "height": 64, "steps": 2});
        let (images, _) = server.images("img2img", &body);
        assert_eq!(pixels(&images[0]).dimensions(), (48, 64), "{mode}");
    }
}

#[test]
fn pixels_outside_the_mask_keep_their_bytes() {
    let server = TestServer::new();
    for (side, full, blur, invert) in [
        (64, false, 0, 0),
        (64, true, 0, 0),
        (64, false, 0, 1),
        (64, false, 2, 0),
        (150, true, 0, 0),
        (150, true, 3, 0),
        (150, true, 0, 1),
    ] {
        let image = photo(side, side);
        let area = [side / 4, side / 2, side / 3, side / 2];
        let mask = mask(side, side, area);
        let body = json!({
            "init_images": [url(&image)], "mask": url(&mask), "prompt": "red heart", "steps": 4, "seed": 2, "mask_blur": blur,
            "inpaint_full_res": full, "inpaint_full_res_padding": 8, "inpainting_mask_invert": invert, "width": 64, "height": 64,
            "denoising_strength": 0.9,
        });
        let (images, info) = server.images("img2img", &body);
        let result = pixels(&images[0]);
        let what = format!("{side} {full} {blur} {invert}");
        assert_eq!(result.dimensions(), if full { (side, side) } else { (64, 64) }, "{what}");
        assert_eq!(server.sdapi("png-info", &json!({"image": images[0]}))["info"], info["infotexts"][0]);
        let reach = (2.5 * f64::from(blur) + 0.5) as u32;
        let near = |at: u32, low: u32, high: u32| at + reach >= low && at < high + reach;
        let (mut changed, mut inside) = (0, 0);
        for (x, y, color) in result.enumerate_pixels() {
            let [left, right, top, bottom] = area;
            let hit = near(x, left, right) && near(y, top, bottom);
            let differs = color != image.get_pixel(x, y);
            if hit == (invert == 1) {
                assert!(!differs, "{what}: {x}, {y}");
            } else {
                inside += 1;
                changed += u32::from(differs);
            }
        }
        assert!(changed * 2 > inside, "{what}: {changed} of {inside}");
    }
}

#[test]
fn what_is_under_the_mask_counts_at_lower_strength() {
    let server = TestServer::new();
    // A black blot on red.
    let area = [20, 44, 20, 44];
    let mask = mask(64, 64, area);
    let image = RgbImage::from_fn(64, 64, |x, y| {
        if mask.get_pixel(x, y).0[0] > 0 { Rgb([0; 3]) } else { Rgb([220, 40, 40]) }
    });
    let redness = |fill: i64| {
        let body = json!({
            "init_images": [url(&image)], "mask": url(&mask), "steps": 10, "seed": 2, "mask_blur": 0, "cfg_scale": 1,
            "inpaint_full_res": false, "inpainting_fill": fill, "denoising_strength": 0.2,
        });
        let (images, _) = server.images("img2img", &body);
        pixels(&images[0]).get_pixel(32, 32).0[0]
    };
    assert!(redness(0) > redness(1) + 60, "{} {}", redness(0), redness(1));
    // As the web UI, a black mask is none where only it is sampled.
    let black = url(&RgbImage::new(64, 64));
    let (images, _) =
        server.images("img2img", &json!({"init_images": [url(&image)], "mask": black, "steps": 2}));
    assert_eq!(images.len(), 1);
}

#[test]
fn images_are_enlarged() {
    let server = TestServer::new();
    let image = url(&photo(40, 20));
    for (body, size) in [
        (json!({"upscaler_1": "Lanczos"}), (80, 40)),
        (json!({"upscaler_1": "Nearest", "upscaling_resize": "3"}), (120, 60)),
        (
            json!({"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 50, "upscaling_resize_h": 50}),
            (50, 50),
        ),
        (
            json!({"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 50, "upscaling_resize_h": 50, "upscaling_crop": false}),
            (100, 50),
        ),
        (json!({"upscaler_1": "None", "gfpgan_visibility": 0}), (40, 20)),
        (
            json!({"upscaler_1": "Lanczos", "upscaler_2": "Nearest", "extras_upscaler_2_visibility": 0.5}),
            (80, 40),
        ),
        (json!({}), (40, 20)),
    ] {
        let mut all = body.clone();
        all["image"] = json!(image);
        assert_eq!(pixels(&server.sdapi("extra-single-image", &all)["image"]).dimensions(), size, "{body}");
        all["imageList"] = json!([{"data": image, "name": "a"}, {"data": image, "name": "b"}]);
        let images = server.sdapi("extra-batch-images", &all)["images"].clone();
        assert_eq!(images.as_array().unwrap().len(), 2);
        assert_eq!(pixels(&images[1]).dimensions(), size, "{body}");
    }
    for (body, status) in [
        (json!({"image": image, "upscaler_1": "ESRGAN"}), 404),
        (json!({"image": image, "upscaler_1": "Lanczos", "upscaling_resize": 1e9}), 400),
        (json!({"image": image, "upscaler_1": "Lanczos", "upscaling_resize": -1}), 400),
        (json!({"image": image, "upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 0}), 400),
        (json!({"image": image, "codeformer_visibility": 1}), 400),
        (json!({"upscaler_1": "Lanczos"}), 400),
        (json!({"image": 3}), 422),
    ] {
        let (got, answer) = server.post("/sdapi/v1/extra-single-image", &body);
        assert_eq!(got, status, "{answer}");
    }
}
