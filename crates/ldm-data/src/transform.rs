//! From a stored picture to the picture a model is shown: resize, crop, flip.

use image::RgbImage;
use image::imageops::{crop_imm, flip_horizontal_in_place};
use serde::{Deserialize, Serialize};

use ldm_core::{Error, Result};

use crate::resize::{Interpolation, resize};
use crate::rng::Rng;

/// How pictures are prepared. Steps are done in this order: resize and crop (or, for `square_crop_first`, crop and
/// resize), then flip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformConfig {
    /// Pixels a side of the result. Left out, pictures keep their size.
    pub size: Option<u32>,
    /// What is resized to what.
    pub resize: Resize,
    /// How values between pixels are found; PIL's, and bicubic as in the reference's LSUN sets.
    pub interpolation: Interpolation,
    /// Which part is kept.
    pub crop: Crop,
    /// How likely a picture is mirrored left to right.
    pub flip: f64,
}

/// What is resized to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The smaller side to `size`, the other in proportion (taming-transformers' `SmallestMaxSize`).
    SmallestSide,
    /// A square is cut first, and resized to `size` (the reference's LSUN sets).
    SquareCropFirst,
    /// Both sides to `size`, whatever the proportions.
    Exact,
    /// Nothing.
    None,
}

/// Which part is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// The middle; half a pixel more is cut at the right and below.
    Center,
    /// Anywhere, all places as likely.
    Random,
    /// A square of any side from `size` to the smaller one, anywhere; with `resize: square_crop_first`.
    RandomSquare,
    /// All of it.
    None,
}

impl Default for TransformConfig {
    fn default() -> Self {
        Self {
            size: None,
            resize: Resize::SmallestSide,
            interpolation: Interpolation::default(),
            crop: Crop::Center,
            flip: 0.,
        }
    }
}

impl TransformConfig {
    /// To squares of `size`: the smaller side resized, the middle cut, nothing by chance.
    pub fn square(size: u32) -> Self {
        Self { size: Some(size), ..Self::default() }
    }
}

/// A checked [`TransformConfig`].
#[derive(Debug, Clone)]
pub struct Transform(TransformConfig);

impl Transform {
    /// Checks the config.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the keys that cannot be together.
    pub fn new(config: TransformConfig) -> Result<Self> {
        let wrong = |what: &str| Err(Error::invalid(format!("transform: {what}")));
        if config.size == Some(0) {
            return wrong("size must be at least 1 pixel, got 0");
        }
        if !(0. ..=1.).contains(&config.flip) {
            return wrong(&format!("flip must be a probability within 0 to 1, got {}", config.flip));
        }
        if config.size.is_some() {
            let square_first = config.resize == Resize::SquareCropFirst;
            if square_first && config.crop == Crop::None {
                return wrong("resize `square_crop_first` needs a crop: center, random or random_square");
            }
            if !square_first && config.crop == Crop::RandomSquare {
                return wrong("crop `random_square` needs resize: square_crop_first");
            }
            if config.resize == Resize::None && config.crop == Crop::None {
                return wrong("a size is given, but neither a resize nor a crop that would reach it");
            }
        }
        Ok(Self(config))
    }

    /// Prepares a picture; what is left to chance is drawn from `rng`.
    ///
    /// # Errors
    /// What is wrong, in words: the picture is smaller than the crop and nothing resizes it.
    pub fn apply(&self, picture: RgbImage, rng: &mut Rng) -> std::result::Result<RgbImage, String> {
        let config = &self.0;
        let mut picture = match config.size {
            Some(size) => self.to_size(picture, size, rng)?,
            None => picture,
        };
        // Drawn even when it cannot matter, so that one key does not change what another draws.
        if rng.unit() < config.flip {
            flip_horizontal_in_place(&mut picture);
        }
        Ok(picture)
    }

    fn to_size(&self, picture: RgbImage, size: u32, rng: &mut Rng) -> std::result::Result<RgbImage, String> {
        let config = &self.0;
        let (width, height) = picture.dimensions();
        let smaller = width.min(height);
        if smaller < size && config.resize == Resize::None {
            return Err(format!(
                "is {width}x{height}, smaller than the {size}x{size} that are to be cut out of it"
            ));
        }
        Ok(match config.resize {
            Resize::SmallestSide => {
                // Python's round, as in albumentations: halves to even.
                let other = |side: u32| {
                    (f64::from(side) * f64::from(size) / f64::from(smaller)).round_ties_even() as u32
                };
                let resized = resize(&picture, other(width), other(height), config.interpolation);
                self.crop(&resized, size, rng)
            }
            Resize::SquareCropFirst => {
                let side = match config.crop {
                    Crop::RandomSquare if smaller > size => {
                        size + rng.below(u64::from(smaller - size + 1)) as u32
                    }
                    _ => smaller,
                };
                resize(&self.crop(&picture, side, rng), size, size, config.interpolation)
            }
            Resize::Exact => resize(&picture, size, size, config.interpolation),
            Resize::None => self.crop(&picture, size, rng),
        })
    }

    fn crop(&self, picture: &RgbImage, side: u32, rng: &mut Rng) -> RgbImage {
        let mut start = |length: u32| match self.0.crop {
            Crop::Center => (length - side) / 2,
            _ => rng.below(u64::from(length - side + 1)) as u32,
        };
        if self.0.crop == Crop::None {
            return picture.clone();
        }
        let (x, y) = (start(picture.width()), start(picture.height()));
        crop_imm(picture, x, y, side, side).to_image()
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// A picture whose pixels say where they are.
    fn places(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 0]))
    }

    fn apply(config: TransformConfig, picture: RgbImage, seed: u64) -> RgbImage {
        Transform::new(config).unwrap().apply(picture, &mut Rng::of(&[seed])).unwrap()
    }

    fn cut(size: u32, crop: Crop) -> TransformConfig {
        TransformConfig { resize: Resize::None, crop, ..TransformConfig::square(size) }
    }

    #[test]
    fn a_centre_crop_is_the_middle() {
        let cropped = apply(cut(3, Crop::Center), places(8, 5), 0);
        assert_eq!(cropped.dimensions(), (3, 3));
        assert_eq!(cropped.get_pixel(0, 0).0, [2, 1, 0]); // floor(5 / 2), floor(2 / 2)
    }

    #[test]
    fn a_random_crop_reaches_every_place_evenly() {
        let mut counts = [[0; 3]; 2];
        for seed in 0..3000 {
            let [x, y, _] = apply(cut(4, Crop::Random), places(6, 5), seed).get_pixel(0, 0).0;
            counts[y as usize][x as usize] += 1;
        }
        // 500 expected, standard deviation 20.
        assert!(counts.iter().flatten().all(|count| (400..600).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_smaller_side_is_resized_and_the_rest_cut() {
        let config = TransformConfig { crop: Crop::None, ..TransformConfig::square(20) };
        assert_eq!(apply(config.clone(), places(60, 40), 0).dimensions(), (30, 20));
        assert_eq!(apply(config.clone(), places(10, 13), 0).dimensions(), (20, 26)); // enlarged too
        assert_eq!(apply(config, places(40, 41), 0).dimensions(), (20, 20)); // 20.5, to even
        assert_eq!(apply(TransformConfig::square(20), places(60, 40), 0).dimensions(), (20, 20));
        let exact = TransformConfig { resize: Resize::Exact, ..TransformConfig::square(20) };
        assert_eq!(apply(exact, places(60, 40), 0).dimensions(), (20, 20));
    }

    #[test]
    fn squares_are_cut_first_where_asked() {
        let lsun = TransformConfig { resize: Resize::SquareCropFirst, ..TransformConfig::square(40) };
        assert_eq!(apply(lsun.clone(), places(60, 40), 0).get_pixel(0, 0).0, [10, 0, 0]);
        let random = TransformConfig {
            crop: Crop::RandomSquare,
            interpolation: Interpolation::Nearest,
            size: Some(10),
            ..lsun
        };
        let sides: Vec<u8> = (0..300)
            .map(|seed| {
                let squares = apply(random.clone(), places(60, 40), seed);
                squares.get_pixel(9, 0).0[0] - squares.get_pixel(0, 0).0[0] // nine tenths of the side
            })
            .collect();
        let (least, most) = (sides.iter().min().unwrap(), sides.iter().max().unwrap());
        assert!(*least <= 10 && *most >= 34, "{least} to {most}");
    }

    #[test]
    fn flips_come_as_often_as_asked() {
        let flipped = |flip: f64| {
            let config = TransformConfig { flip, ..TransformConfig::default() };
            (0..1000)
                .filter(|&seed| apply(config.clone(), places(5, 3), seed).get_pixel(0, 0).0[0] == 4)
                .count()
        };
        assert_eq!(flipped(0.), 0);
        assert_eq!(flipped(1.), 1000);
        assert!((430..570).contains(&flipped(0.5)));
    }

    #[test]
    fn a_picture_too_small_is_told() {
        let transform = Transform::new(cut(32, Crop::Center)).unwrap();
        let message = transform.apply(places(40, 20), &mut Rng::of(&[])).unwrap_err();
        assert_eq!(message, "is 40x20, smaller than the 32x32 that are to be cut out of it");
    }

    #[test]
    fn keys_that_cannot_be_together_are_refused() {
        let check = |config: TransformConfig, expected: &str| {
            assert_eq!(Transform::new(config).unwrap_err().to_string(), format!("transform: {expected}"));
        };
        let base = TransformConfig::square(8);
        check(TransformConfig { size: Some(0), ..base.clone() }, "size must be at least 1 pixel, got 0");
        check(
            TransformConfig { flip: 1.5, ..base.clone() },
            "flip must be a probability within 0 to 1, got 1.5",
        );
        check(
            TransformConfig { crop: Crop::RandomSquare, ..base.clone() },
            "crop `random_square` needs resize: square_crop_first",
        );
        check(
            TransformConfig { crop: Crop::None, resize: Resize::SquareCropFirst, ..base.clone() },
            "resize `square_crop_first` needs a crop: center, random or random_square",
        );
        check(
            TransformConfig { crop: Crop::None, resize: Resize::None, ..base },
            "a size is given, but neither a resize nor a crop that would reach it",
        );
    }
}
