//! AUTOMATIC1111's API.

mod images;
mod lists;
mod progress;
mod refusals;
mod text;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::server::TestServer;

fn decoded(image: &Value) -> Vec<u8> {
    STANDARD.decode(image.as_str().expect("base64")).unwrap()
}

fn pixels(image: &Value) -> RgbImage {
    image::load_from_memory(&decoded(image)).unwrap().into_rgb8()
}

/// A `data:` URL.
fn url(image: &RgbImage) -> String {
    let mut png = std::io::Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).unwrap();
    format!("data:image/png;base64,{}", STANDARD.encode(png.into_inner()))
}

fn photo(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 90]))
}

/// White in a rectangle of `[left, right, top, bottom]`.
fn mask(width: u32, height: u32, [left, right, top, bottom]: [u32; 4]) -> RgbImage {
    let inside = |x, y| (left..right).contains(&x) && (top..bottom).contains(&y);
    RgbImage::from_fn(width, height, |x, y| Rgb([if inside(x, y) { 255 } else { 0 }; 3]))
}

impl TestServer {
    fn sdapi(&self, route: &str, body: &Value) -> Value {
        let (status, answer) = self.post(&format!("/sdapi/v1/{route}"), body);
        assert_eq!(status, 200, "{route}: {answer}");
        answer
    }

    /// The images, and the parsed `info`.
    fn images(&self, route: &str, body: &Value) -> (Vec<Value>, Value) {
        let answer = self.sdapi(route, body);
        let info = serde_json::from_str(answer["info"].as_str().unwrap()).unwrap();
        (answer["images"].as_array().unwrap().clone(), info)
    }

    /// The PNG of the first image of a job of the own API.
    fn own(&self, request: &Value) -> Vec<u8> {
        let job = self.job(request);
        assert_eq!(job["state"], "done", "{job}");
        self.bytes(&format!("/v1/jobs/{}/images/0", job["id"].as_str().unwrap()))
    }
}
