//! Parsers of bounded numbers.

/// Parses a number in `[0, 1]`.
pub(crate) fn unit_interval(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0. ..=1.).contains(number));
    number.ok_or_else(|| "expected a number from 0 to 1".into())
}

/// Parses a number other than NaN and Inf.
pub(crate) fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "expected a finite number".into())
}

/// Parses a number of images, at least 1.
pub(crate) fn image_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MAX_IMAGES).contains(count));
    count.ok_or_else(|| format!("expected 1 to {MAX_IMAGES} images"))
}

/// The most images of a command.
const MAX_IMAGES: usize = 10_000_000;

/// Parses the side of an image in pixels.
pub(crate) fn side(text: &str) -> Result<i64, String> {
    let side = text.parse().ok().filter(|side| (1..=MAX_SIDE).contains(side));
    side.ok_or_else(|| format!("expected 1 to {MAX_SIDE} pixels"))
}

/// [`side`] for images that are read.
pub(crate) fn input_side(text: &str) -> Result<u32, String> {
    side(text).map(|side| side as u32)
}

/// The longest side of an image.
const MAX_SIDE: i64 = 65_536;
