//! Parsers of bounded numbers, intervals, tile sizes and variation strengths.

use std::str::FromStr;

use ldm_pipelines::TileSize;

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

/// Interval `LOW..HIGH`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once("..")
            .and_then(|(low, high)| Some(Self { low: low.parse().ok()?, high: high.parse().ok()? }))
            .filter(|interval| 0. <= interval.low && interval.low < interval.high)
            .ok_or_else(|| "expected LOW..HIGH, as 0.3..5, with 0 <= LOW < HIGH".into())
    }
}

/// Parses a tile size: a number of pixels, or auto.
pub(crate) fn tile_size(text: &str) -> Result<TileSize, String> {
    match text.parse() {
        Ok(side) if side > 0 => Ok(TileSize::Pixels(side)),
        _ if text == "auto" => Ok(TileSize::Auto),
        _ => Err("expected a number of pixels, or auto".into()),
    }
}

/// The strength of variations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum VariationStrength {
    /// One strength for all images.
    Each(f64),
    /// Strengths of the first and the last image, interpolated linearly.
    Along(f64, f64),
}

impl FromStr for VariationStrength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| "expected a number from 0 to 1, or FROM..TO with two of them".to_owned();
        match text.split_once("..") {
            None => unit_interval(text).map(Self::Each).map_err(wrong),
            Some((from, to)) => {
                unit_interval(from).and_then(|from| Ok(Self::Along(from, unit_interval(to)?))).map_err(wrong)
            }
        }
    }
}

impl VariationStrength {
    /// Returns the strength of image `index` of `count`.
    pub(crate) fn of(self, index: usize, count: usize) -> f64 {
        match self {
            Self::Each(strength) => strength,
            Self::Along(from, _) if count == 1 => from,
            Self::Along(from, to) => from + (to - from) * index as f64 / (count - 1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_tiles_and_strengths() {
        assert_eq!("0.3..5".parse(), Ok(Interval { low: 0.3, high: 5. }));
        assert_eq!("0..inf".parse(), Ok(Interval { low: 0., high: f64::INFINITY }));
        for wrong in ["", "1", "..", "2..1", "-1..2", "a..b", "1..1", "NaN..1"] {
            assert!(wrong.parse::<Interval>().is_err(), "{wrong}");
        }
        assert_eq!("0.25".parse(), Ok(VariationStrength::Each(0.25)));
        let strength: VariationStrength = "0..1".parse().unwrap();
        assert_eq!([0, 1, 2, 4].map(|index| strength.of(index, 5)), [0., 0.25, 0.5, 1.]);
        assert_eq!(["auto", "64"].map(tile_size), [Ok(TileSize::Auto), Ok(TileSize::Pixels(64))]);
        for wrong in ["", "0", "-8", "64px"] {
            assert!(tile_size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "2", "0..2", "-0.1", "x", "NaN"] {
            assert!(wrong.parse::<VariationStrength>().is_err(), "{wrong}");
        }
    }
}
