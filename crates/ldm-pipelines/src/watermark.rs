//! The invisible watermark of Stable Diffusion's scripts: a few bytes in the colors of an image.
//!
//! Bit-exact with the method `dwtDct` of the Python package invisible-watermark (0.1.5 and 0.2.0,
//! `imwatermark/maxDct.py`), which computes no DCT:
//!
//! 1. Convert 8-bit RGB to 8-bit YUV as OpenCV does. Steps 2 and 3 use U, cropped to multiples of 4.
//! 2. Apply one level of the Haar transform. In the low band, split into 4×4 blocks row by row, block k carries bit
//!    k mod n, the high bit of a byte first.
//! 3. In each block set the largest value except the first, v, to (⌊v/36⌋ + ¼ + bit/2)·36.
//! 4. Invert both transforms; all channels are rounded twice by YUV.
//!
//! Reading is a vote: a block votes one when the same value is over 18 mod 36, and a bit is one with half of its
//! blocks. The watermark is weak. Lowering the largest value can make another one the largest, which then votes at
//! random; only grayish images, with U from 126 to 130, are safe from that. Of 78 photographs that the package marks,
//! it reads 24 without an error.
//!
//! Two bugs of the package are reproduced for compatibility: between 2 and 4 it swaps the two mixed bands, which
//! transposes every 2×2 of U; and it truncates U, so that the last bit of each sum below shows in the image.

use std::f64::consts::FRAC_1_SQRT_2;

use image::RgbImage;

use ldm_core::{Error, Result};

/// The payload of CompVis' `txt2img` in each sample and in the grid (`stable-diffusion/scripts/txt2img.py:262`).
pub const STABLE_DIFFUSION: &[u8] = b"StableDiffusionV1";

/// The minimum area of the package, in pixels (`imwatermark/watermark.py`, `encode`).
const MIN_AREA: usize = 256 * 256;
/// The distance of two values that encode the same bit.
const STEP: f64 = 36.;

/// Embeds `payload` in an image, repeated over all blocks.
///
/// # Errors
/// [`Error::Invalid`], without a change of the image, when it has less than 256·256 pixels or fewer blocks of 8×8
/// pixels than the payload has bits (the package then truncates the payload), or when the payload is empty.
pub fn embed(image: &mut RgbImage, payload: &[u8]) -> Result<()> {
    if payload.is_empty() || payload.len() > capacity(image) {
        let (width, height) = image.dimensions();
        return Err(Error::invalid(format!(
            "image: expected at least {MIN_AREA} pixels and a block of 8x8 pixels for each bit of a watermark of {} \
             bytes, got {width}x{height}",
            payload.len()
        )));
    }
    for pixel in image.pixels_mut() {
        pixel.0 = to_yuv(pixel.0);
    }
    let (rows, columns) = low_size(image);
    let mut low = low_band(image);
    for (index, block) in blocks(rows, columns).enumerate() {
        let bit = index % (8 * payload.len());
        let bit = payload[bit / 8] >> (7 - bit % 8) & 1;
        let at = largest(&low, block);
        low[at] = low[at] - low[at] % STEP + (0.25 + 0.5 * f64::from(bit)) * STEP;
    }
    for (index, low) in low.into_iter().enumerate() {
        let [left, top] = [2 * (index % columns) as u32, 2 * (index / columns) as u32];
        let [_, right, down, cross] = haar(square(image, left, top));
        // U is in 17..=239 and moves by 13.5 at most: no value leaves 8 bits.
        let [upper_left, lower_left, upper_right, lower_right] =
            haar([low, right, down, cross]).map(|value| value as u8);
        for (x, y, value) in
            [(0, 0, upper_left), (1, 0, upper_right), (0, 1, lower_left), (1, 1, lower_right)]
        {
            image.get_pixel_mut(left + x, top + y).0[1] = value;
        }
    }
    for pixel in image.pixels_mut() {
        pixel.0 = to_rgb(pixel.0);
    }
    Ok(())
}

/// Reads a watermark of that many bytes from an image; without a watermark the bytes are meaningless.
///
/// Empty for an image in which [`embed`] refuses a payload of that length.
pub fn read(image: &RgbImage, bytes: usize) -> Vec<u8> {
    if bytes > capacity(image) {
        return Vec::new();
    }
    let mut yuv = image.clone();
    for pixel in yuv.pixels_mut() {
        pixel.0 = to_yuv(pixel.0);
    }
    let (rows, columns) = low_size(image);
    let low = low_band(&yuv);
    let values: Vec<f64> = blocks(rows, columns).map(|block| low[largest(&low, block)]).collect();
    let bit = |bit| {
        let votes = values.iter().skip(bit).step_by(8 * bytes);
        is_set(votes.clone().filter(|&value| value % STEP > STEP / 2.).count(), votes.count())
    };
    (0..bytes).map(|byte| (8 * byte..8 * byte + 8).fold(0, |sum, at| sum << 1 | u8::from(bit(at)))).collect()
}

/// Returns true when `ones` of `votes` make a one: so does a tie, and slightly less.
fn is_set(ones: usize, votes: usize) -> bool {
    ones as f64 / votes as f64 * 255. > 127.
}

/// The number of bytes with a block for each bit.
fn capacity(image: &RgbImage) -> usize {
    let (rows, columns) = low_size(image);
    if image.pixels().len() < MIN_AREA { 0 } else { (rows / 4) * (columns / 4) / 8 }
}

/// Rows and columns of the low band.
fn low_size(image: &RgbImage) -> (usize, usize) {
    let (width, height) = image.dimensions();
    (height as usize / 4 * 2, width as usize / 4 * 2)
}

/// The low band of U, no value below 0.
///
/// # Shapes
/// - `yuv`: `H×W`; returns `[rows, columns]` of [`low_size`]
fn low_band(yuv: &RgbImage) -> Vec<f64> {
    let (rows, columns) = low_size(yuv);
    let places = (0..rows as u32).flat_map(|y| (0..columns as u32).map(move |x| (x, y)));
    places.map(|(x, y)| haar(square(yuv, 2 * x, 2 * y))[0]).collect()
}

/// The indices of the 16 values of each block in the low band; blocks and values row by row.
fn blocks(rows: usize, columns: usize) -> impl Iterator<Item = [usize; 16]> {
    let corners = (0..rows / 4).flat_map(move |y| (0..columns / 4).map(move |x| 4 * (y * columns + x)));
    corners.map(move |corner| std::array::from_fn(|at| corner + at / 4 * columns + at % 4))
}

/// The index of the largest value of a block, the first of equals, without the block's first value.
fn largest(low: &[f64], block: [usize; 16]) -> usize {
    block[2..].iter().fold(block[1], |best, &at| if low[at] > low[best] { at } else { best })
}

/// U of a 2×2: upper left, upper right, lower left, lower right.
fn square(yuv: &RgbImage, left: u32, top: u32) -> [f64; 4] {
    let u = |x, y| f64::from(yuv.get_pixel(left + x, top + y).0[1]);
    [u(0, 0), u(1, 0), u(0, 1), u(1, 1)]
}

/// The Haar transform of a 2×2: twice its mean and its changes to the right, downwards and crosswise, first along
/// columns, then along rows, in PyWavelets' order of sums. It is its own inverse; with the roles of columns and rows,
/// as here, up to a transposition.
fn haar([upper_left, upper_right, lower_left, lower_right]: [f64; 4]) -> [f64; 4] {
    let pair = |a: f64, b: f64| {
        let (a, b) = (FRAC_1_SQRT_2 * a, FRAC_1_SQRT_2 * b);
        (a + b, a - b)
    };
    let (left, left_change) = pair(upper_left, lower_left);
    let (right, right_change) = pair(upper_right, lower_right);
    let (mean, across) = pair(left, right);
    let (down, cross) = pair(left_change, right_change);
    [mean, across, down, cross]
}

/// Y, U and V of RGB in 14 bits of fraction, as OpenCV's `COLOR_BGR2YUV` on 8 bits.
fn to_yuv(rgb: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = rgb.map(i32::from);
    let y = rounded(4899 * r + 9617 * g + 1868 * b);
    [y, 128 + rounded(8061 * (b - y)), 128 + rounded(14369 * (r - y))].map(saturated)
}

/// The inverse of [`to_yuv`] up to rounding, as OpenCV's `COLOR_YUV2BGR`; few colors survive both.
fn to_rgb(yuv: [u8; 3]) -> [u8; 3] {
    let [y, u, v] = yuv.map(i32::from);
    let (u, v) = (u - 128, v - 128);
    [y + rounded(18678 * v), y + rounded(-6472 * u - 9519 * v), y + rounded(33292 * u)].map(saturated)
}

fn rounded(fixed: i32) -> i32 {
    (fixed + (1 << 13)) >> 14
}

fn saturated(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use serde_json::json;

    use super::*;

    // Made by tests/golden/watermark.py.
    const PLAIN: &[u8] = include_bytes!("../tests/golden/watermark.webp");
    const MARKED: &[u8] = include_bytes!("../tests/golden/watermark_marked.webp");
    const GOLDEN: &str = include_str!("../tests/golden/watermark.json");

    fn decoded(bytes: &[u8]) -> RgbImage {
        image::load_from_memory(bytes).unwrap().into_rgb8()
    }

    /// Grayish colors that preserve a watermark: U a little above the middle.
    fn soft(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let gray = (60 + (x + 2 * y) % 120) as u8;
            Rgb([gray, gray + (y % 3) as u8, gray + 4 + (x % 2) as u8])
        })
    }

    #[test]
    fn embedding_is_bit_exact_with_the_package() {
        let mut image = decoded(PLAIN);
        embed(&mut image, STABLE_DIFFUSION).unwrap();
        let marked = decoded(MARKED);
        let differing: Vec<_> =
            marked.enumerate_pixels().filter(|(x, y, pixel)| image.get_pixel(*x, *y) != *pixel).collect();
        assert_eq!(differing, []);
    }

    #[test]
    fn reading_agrees_with_the_package() {
        let golden: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        for (name, bytes) in [("watermark.webp", PLAIN), ("watermark_marked.webp", MARKED)] {
            let image = decoded(bytes);
            for (length, expected) in golden[name].as_object().unwrap() {
                let length = length.parse().unwrap();
                assert_eq!(json!(read(&image, length)), *expected, "{length} bytes of {name}");
            }
        }
        assert_eq!(read(&decoded(MARKED), STABLE_DIFFUSION.len()), STABLE_DIFFUSION);
    }

    #[test]
    fn a_payload_round_trips_at_any_size() {
        for (width, height) in [(256, 256), (513, 300), (258, 511), (8192, 8), (11, 9000)] {
            for payload in [STABLE_DIFFUSION, b"\0", b"\xff", "猫 and a mark".as_bytes()] {
                let mut image = soft(width, height);
                embed(&mut image, payload).unwrap();
                assert_eq!(read(&image, payload.len()), payload, "{width}x{height}");
            }
        }
    }

    #[test]
    fn pixels_beyond_the_last_multiple_of_four_only_pass_through_yuv() {
        let (plain, mut image) = (soft(259, 257), soft(259, 257));
        embed(&mut image, STABLE_DIFFUSION).unwrap();
        let through = |x, y| to_rgb(to_yuv(plain.get_pixel(x, y).0));
        let edge = (0..257).flat_map(|y| (256..259).map(move |x| (x, y))).chain((0..256).map(|x| (x, 256)));
        for (x, y) in edge {
            assert_eq!(image.get_pixel(x, y).0, through(x, y), "{x}, {y}");
        }
        assert_ne!(image.get_pixel(1, 0).0, through(1, 0));
    }

    #[test]
    fn images_too_small_for_a_watermark_are_refused_and_unchanged() {
        let sizes = [(0, 0), (1, 1), (3, 3), (128, 128), (255, 257), (30_000, 3), (3, 30_000), (7, 16_384)];
        for (width, height) in sizes {
            let mut image = soft(width, height);
            assert!(embed(&mut image, STABLE_DIFFUSION).is_err(), "{width}x{height}");
            assert_eq!(image, soft(width, height));
            assert!(read(&image, 1).is_empty());
        }
        let mut image = soft(256, 256);
        for payload in [&[][..], &[7; 129]] {
            assert!(embed(&mut image, payload).is_err());
        }
        assert_eq!(image, soft(256, 256));
        assert!([0, 129, usize::MAX].iter().all(|&length| read(&image, length).is_empty()));
        embed(&mut image, &[7; 128]).unwrap();
        assert_eq!(read(&image, 128), [7; 128]);
    }

    #[test]
    fn color_conversion_is_that_of_opencv() {
        let golden: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        let levels = || (0..=255).step_by(5);
        let colors =
            || levels().flat_map(move |a| levels().flat_map(move |b| levels().map(move |c| [a, b, c])));
        let squares = |to: fn([u8; 3]) -> [u8; 3]| {
            colors().map(to).fold([0; 3], |sums: [u64; 3], color| {
                std::array::from_fn(|at| sums[at] + u64::from(color[at]).pow(2))
            })
        };
        assert_eq!(json!(squares(to_yuv)), golden["sums of squares"]["yuv"]);
        assert_eq!(json!(squares(to_rgb)), golden["sums of squares"]["rgb"]);
    }

    /// numpy: mean·255 > 127.
    #[test]
    fn half_of_the_votes_make_a_one_and_slightly_less_do() {
        let votes = [(0, 1), (1, 1), (3, 7), (4, 8), (127, 255), (127, 256), (128, 257), (508, 1020)];
        assert_eq!(
            votes.map(|(ones, votes)| is_set(ones, votes)),
            [false, true, false, true, false, false, true, false]
        );
    }
}
