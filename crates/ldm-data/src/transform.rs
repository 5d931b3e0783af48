//! From a stored image to the image a model is shown: resize, crop, flip.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use ldm_core::{Error, Result};

use crate::interpolation::Interpolation;
use crate::placement::{Part, Placement};
use crate::rng::Rng;

/// How images are prepared. Steps are done in this order: resize and crop (or, for `square_crop_first`, crop and
/// resize), then flip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformConfig {
    /// Pixels a side of the result. Left out, images keep their size.
    pub size: Option<u32>,
    /// What is resized to what.
    pub resize: Resize,
    /// How values between pixels are found; PIL's, and bicubic as in the reference's LSUN sets.
    pub interpolation: Interpolation,
    /// Which part is kept.
    pub crop: Crop,
    /// How likely an image is mirrored left to right.
    pub flip: f64,
    /// The least side of a square that is cut, as a share of the smaller one, in (0, 1]; with
    /// `resize: square_crop_first` and `max_crop_f` (the reference's `ImageNetSR`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_crop_f: Option<f64>,
    /// The largest such share, in (0, 1]; all between are as likely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_crop_f: Option<f64>,
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
    /// A square of any side from `size` to the smaller one, anywhere; with `resize: square_crop_first`. Its side is
    /// drawn by `min_crop_f` and `max_crop_f` where they are given.
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
            min_crop_f: None,
            max_crop_f: None,
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
        match (config.min_crop_f, config.max_crop_f) {
            (None, None) => Ok(Self(config)),
            (Some(least), Some(most)) => {
                if config.size.is_none()
                    || config.resize != Resize::SquareCropFirst
                    || config.crop == Crop::Random
                {
                    return wrong(
                        "min_crop_f and max_crop_f need a size, resize: square_crop_first, and crop: random_square or \
                         center",
                    );
                }
                if !(least > 0. && least <= most && most <= 1.) {
                    return wrong(&format!(
                        "expected 0 < min_crop_f <= max_crop_f <= 1, got {least} and {most}"
                    ));
                }
                Ok(Self(config))
            }
            _ => wrong("min_crop_f and max_crop_f go together"),
        }
    }

    /// Prepares an image; what is left to chance is drawn from `rng`.
    ///
    /// # Errors
    /// Those of [`Transform::place`].
    pub fn apply(&self, image: RgbImage, rng: &mut Rng) -> std::result::Result<RgbImage, String> {
        let (width, height) = image.dimensions();
        Ok(self.place([width, height], rng)?.image(image))
    }

    /// Decides what happens to an image of a width and height; what is left to chance is drawn from `rng`.
    ///
    /// # Errors
    /// What is wrong, in words: the image is smaller than the crop and nothing resizes it.
    pub fn place(&self, stored: [u32; 2], rng: &mut Rng) -> std::result::Result<Placement, String> {
        let config = &self.0;
        let mut placement = match config.size {
            Some(size) => self.to_size(stored, size, rng)?,
            None => Placement::whole(config.interpolation),
        };
        // Drawn even when it cannot matter, so that one key does not change what another draws.
        placement.flip = rng.unit() < config.flip;
        Ok(placement)
    }

    fn to_size(&self, stored: [u32; 2], size: u32, rng: &mut Rng) -> std::result::Result<Placement, String> {
        let config = &self.0;
        let [width, height] = stored;
        let smaller = width.min(height);
        if smaller < size && config.resize == Resize::None {
            return Err(format!(
                "is {width}x{height}, smaller than the {size}x{size} that are to be cut out of it"
            ));
        }
        let whole = Placement::whole(config.interpolation);
        Ok(match config.resize {
            Resize::SmallestSide => {
                // Python's round, as in albumentations: halves to even.
                let resized = stored.map(|side| {
                    (f64::from(side) * f64::from(size) / f64::from(smaller)).round_ties_even() as u32
                });
                let after = self.cut(resized, size, rng);
                Placement { resized: Some(resized), after, crop: self.shown(resized, after), ..whole }
            }
            Resize::SquareCropFirst => {
                let before = self.cut(stored, self.side(smaller, size, rng), rng);
                let crop = self.shown(stored, before);
                Placement { before, resized: Some([size; 2]), crop, ..whole }
            }
            Resize::Exact => Placement { resized: Some([size; 2]), ..whole },
            Resize::None => {
                let after = self.cut(stored, size, rng);
                Placement { after, crop: self.shown(stored, after), ..whole }
            }
        })
    }

    /// The side of a square that is cut before it is resized.
    fn side(&self, smaller: u32, size: u32, rng: &mut Rng) -> u32 {
        let config = &self.0;
        if let (Some(least), Some(most)) = (config.min_crop_f, config.max_crop_f) {
            // CompVis `ldm/data/imagenet.py:360`, rounded down.
            return ((f64::from(smaller) * rng.between(least, most)) as u32).max(1);
        }
        match config.crop {
            Crop::RandomSquare if smaller > size => size + rng.below(u64::from(smaller - size + 1)) as u32,
            _ => smaller,
        }
    }

    /// A square of `side`; none where all is kept.
    fn cut(&self, [width, height]: [u32; 2], side: u32, rng: &mut Rng) -> Option<Part> {
        let mut start = |length: u32| match self.0.crop {
            Crop::Center => (length - side) / 2,
            _ => rng.below(u64::from(length - side + 1)) as u32,
        };
        (self.0.crop != Crop::None).then(|| [start(width), start(height), side, side])
    }

    /// What a cut shows, relative to all of it. taming-transformers `image_transforms.py:36, 72, 78`: a random crop is
    /// told by its pixels, and the largest square of the middle by the proportions, to half a pixel.
    fn shown(&self, [width, height]: [u32; 2], cut: Option<Part>) -> [f64; 4] {
        let (width, height) = (f64::from(width), f64::from(height));
        let Some([x, y, w, h]) = cut.map(|cut| cut.map(f64::from)) else { return [0., 0., 1., 1.] };
        if self.0.crop == Crop::Center && w == width.min(height) {
            return if width > height {
                [0.5 - height / width / 2., 0., height / width, 1.]
            } else {
                [0., 0.5 - width / height / 2., 1., width / height]
            };
        }
        [x / width, y / height, w / width, h / height]
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// An image whose pixels say where they are.
    fn places(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 0]))
    }

    fn apply(config: TransformConfig, image: RgbImage, seed: u64) -> RgbImage {
        Transform::new(config).unwrap().apply(image, &mut Rng::of(&[seed])).unwrap()
    }

    fn cut(size: u32, crop: Crop) -> TransformConfig {
        TransformConfig { resize: Resize::None, crop, ..TransformConfig::square(size) }
    }

    #[test]
    fn a_center_crop_is_the_middle() {
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
    fn a_image_too_small_is_told() {
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
        let shares = |least, most| TransformConfig {
            resize: Resize::SquareCropFirst,
            min_crop_f: least,
            max_crop_f: most,
            ..TransformConfig::square(8)
        };
        check(shares(Some(0.5), None), "min_crop_f and max_crop_f go together");
        check(shares(Some(0.9), Some(0.5)), "expected 0 < min_crop_f <= max_crop_f <= 1, got 0.9 and 0.5");
        check(
            TransformConfig { resize: Resize::SmallestSide, ..shares(Some(0.5), Some(1.)) },
            "min_crop_f and max_crop_f need a size, resize: square_crop_first, and crop: random_square or center",
        );
    }

    #[test]
    fn a_square_may_be_a_share_of_the_smaller_side() {
        let config = TransformConfig {
            resize: Resize::SquareCropFirst,
            crop: Crop::RandomSquare,
            min_crop_f: Some(0.5),
            max_crop_f: Some(1.),
            ..TransformConfig::square(8)
        };
        let transform = Transform::new(config).unwrap();
        let sides: Vec<u32> = (0..500)
            .map(|seed| transform.place([60, 40], &mut Rng::of(&[seed])).unwrap().before.unwrap()[2])
            .collect();
        assert!(sides.iter().all(|side| (20..40).contains(side)), "{sides:?}");
        let mean = f64::from(sides.iter().sum::<u32>()) / 500.;
        assert!((mean - 29.5).abs() < 0.8, "{mean}"); // standard deviation 0.26
    }

    #[test]
    fn a_crop_remembers_what_it_shows() {
        let place = |config: TransformConfig, seed| {
            Transform::new(config).unwrap().place([60, 40], &mut Rng::of(&[seed])).unwrap()
        };
        let middle = place(TransformConfig::square(20), 0);
        assert_eq!(middle.crop, [0.5 - 40. / 60. / 2., 0., 40. / 60., 1.]);
        let random = TransformConfig { crop: Crop::Random, flip: 1., ..TransformConfig::square(20) };
        for seed in 0..50 {
            let placement = place(random.clone(), seed);
            let [x, ..] = placement.after.unwrap();
            assert_eq!(placement.crop, [f64::from(x) / 30., 0., 20. / 30., 1.]);
            let shown = placement.shown()[0];
            assert!((shown - f64::from(10 - x) / 30.).abs() < 1e-12, "{x}: {shown}");
        }
    }
}
