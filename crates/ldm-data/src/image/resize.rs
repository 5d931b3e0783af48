//! Resizing bit for bit as PIL: antialiased, each filter widened by the factor of reduction.
//!
//! No crate agrees with PIL: `fast_image_resize` 5.5 resizes columns before rows (up to 25 gray levels off where a
//! filter overshoots), has 16-bit weights (2 levels off) and another rule at ties of the box filter.

use std::f64::consts::PI;

use image::{GrayImage, RgbImage};

use crate::image::cv_resize;
use crate::image::interpolation::Interpolation;

/// Resizes an image to `width` by `height` pixels, bit for bit as PIL's `Image.resize`; the
/// interpolations named `cv_…` as OpenCV's `cv2.resize` (see `cv_resize.rs`).
///
/// Pillow `src/libImaging/Resample.c`: rows first, 8 bits in between, weights of 22 bits.
///
/// # Panics
/// When a side of either image is 0.
pub fn resize(image: &RgbImage, width: u32, height: u32, interpolation: Interpolation) -> RgbImage {
    assert!(width > 0 && height > 0 && !image.is_empty(), "an image has pixels");
    if let Some(kind) = interpolation.opencv() {
        return cv_resize::image(image, width, height, kind);
    }
    if interpolation == Interpolation::Nearest {
        // By index: the rows of a narrow image at the new width, before its columns, may be huge.
        let [columns, rows] = [(image.width(), width), (image.height(), height)]
            .map(|(from, to)| nearest_pixels(from, to, interpolation));
        return RgbImage::from_fn(width, height, |x, y| {
            *image.get_pixel(columns[x as usize], rows[y as usize])
        });
    }
    let mut image = image.clone();
    if image.width() != width {
        image = along_rows(&image, width, &taps(image.width(), width, interpolation));
    }
    if image.height() != height {
        image = along_columns(&image, height, &taps(image.height(), height, interpolation));
    }
    image
}

/// Resizes a label map by the nearest pixel: OpenCV's rule where `interpolation`, that of the image, is OpenCV's, else
/// PIL's.
pub(crate) fn resize_labels(
    map: &GrayImage,
    width: u32,
    height: u32,
    interpolation: Interpolation,
) -> GrayImage {
    let [columns, rows] = [(map.width(), width), (map.height(), height)]
        .map(|(from, to)| nearest_pixels(from, to, interpolation));
    GrayImage::from_fn(width, height, |x, y| *map.get_pixel(columns[x as usize], rows[y as usize]))
}

/// The nearest of `from` pixels of each of `to`.
fn nearest_pixels(from: u32, to: u32, interpolation: Interpolation) -> Vec<u32> {
    if interpolation.opencv().is_some() {
        return cv_resize::nearest(from as usize, to as usize).map(|at| at as u32).collect();
    }
    let scale = f64::from(from) / f64::from(to);
    (0..to).map(|k| ((f64::from(k) + 0.5) * scale) as u32).collect()
}

/// Fractional bits of a weight: 8 are for the value of a pixel, 2 for overshoot.
const BITS: u32 = 32 - 8 - 2;

/// The weights of the input pixels of one output pixel, from pixel `start` on.
struct PixelWeights {
    start: usize,
    weights: Vec<i32>,
}

fn taps(from: u32, to: u32, interpolation: Interpolation) -> Vec<PixelWeights> {
    let scale = f64::from(from) / f64::from(to);
    let stretch = scale.max(1.);
    let support = interpolation.support() * stretch;
    let one = |k: u32| {
        let center = (f64::from(k) + 0.5) * scale;
        let start = (center - support + 0.5).max(0.) as usize;
        let end = ((center + support + 0.5) as usize).min(from as usize);
        // Multiplied by the inverse, as PIL: at the edge of the box filter the last bit decides.
        let inverse = 1. / stretch;
        let weights: Vec<f64> =
            (start..end).map(|x| interpolation.weight((x as f64 - center + 0.5) * inverse)).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (weight / sum * f64::from(1 << BITS)).round() as i32;
        PixelWeights { start, weights: weights.iter().map(fixed).collect() }
    };
    (0..to).map(one).collect()
}

impl Interpolation {
    /// Support of the filter, in pixels of the smaller image.
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.,
            Self::Bicubic => 2.,
            Self::Lanczos => 3.,
            _ => 0., // nearest has no weights, and OpenCV's have their own
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0. { 1. } else { (x * PI).sin() / (x * PI) };
        let d = x.abs();
        match self {
            Self::Nearest => 1.,
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1. - d).max(0.),
            Self::Hamming if d < 1. => sinc(d) * (0.54 + 0.46 * (d * PI).cos()),
            Self::Bicubic if d < 1. => (1.5 * d - 2.5) * d * d + 1., // a = -0.5
            Self::Bicubic if d < 2. => (((d - 5.) * d + 8.) * d - 4.) * -0.5,
            Self::Lanczos if (-3. ..3.).contains(&x) => sinc(x) * sinc(x / 3.),
            _ => 0.,
        }
    }
}

fn round(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (BITS - 1);

fn along_rows(image: &RgbImage, width: u32, taps: &[PixelWeights]) -> RgbImage {
    let stride = 3 * image.width() as usize;
    let mut pixels = Vec::with_capacity((3 * width * image.height()) as usize);
    for row in image.as_raw().chunks_exact(stride) {
        for tap in taps {
            let mut sum = [HALF; 3];
            for (pixel, weight) in row[3 * tap.start..].chunks_exact(3).zip(&tap.weights) {
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            pixels.extend(sum.map(round));
        }
    }
    RgbImage::from_raw(width, image.height(), pixels).expect("three bytes a pixel")
}

fn along_columns(image: &RgbImage, height: u32, taps: &[PixelWeights]) -> RgbImage {
    let stride = 3 * image.width() as usize;
    let mut pixels = Vec::with_capacity(stride * height as usize);
    let mut sums = vec![0; stride];
    for tap in taps {
        sums.fill(HALF);
        for (row, weight) in image.as_raw()[stride * tap.start..].chunks_exact(stride).zip(&tap.weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        pixels.extend(sums.iter().copied().map(round));
    }
    RgbImage::from_raw(image.width(), height, pixels).expect("three bytes a pixel")
}
