//! Transforms of stored images: resize, crop, flip.

use image::RgbImage;
use ldm_core::{Error, Result, memory};
use serde::{Deserialize, Serialize};

use crate::image::interpolation::Interpolation;
use crate::image::placement::{PixelRect, Placement};
use crate::rng::Rng;

/// Preparation of images, in this order: resize and crop (or, for `square_crop_first`, crop and resize), then flip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformConfig {
    /// Side of the result in pixels. Left out, images keep their size.
    pub size: Option<u32>,
    /// Resize.
    pub resize: Resize,
    /// Interpolation; by default PIL's bicubic, as in CompVis' LSUN datasets.
    pub interpolation: Interpolation,
    /// Crop.
    pub crop: Crop,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Least side of a square crop, relative to the smaller side, in (0, 1]; with
    /// `resize: square_crop_first` and `max_crop_f` (CompVis' `ImageNetSR`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_crop_f: Option<f64>,
    /// Largest such side, in (0, 1]; uniform between the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_crop_f: Option<f64>,
}

/// Method of resizing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Resizes the smaller side to `size`, the other in proportion (taming-transformers' `SmallestMaxSize`).
    SmallestSide,
    /// Crops a square first and resizes it to `size` (CompVis' LSUN datasets).
    SquareCropFirst,
    /// Resizes both sides to `size`, regardless of the aspect ratio.
    Exact,
    /// Does not resize.
    None,
}

/// Method of cropping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// The center; an odd pixel is cut off at the right and at the bottom.
    Center,
    /// Anywhere, uniformly.
    Random,
    /// A square of any side from `size` to the smaller one, anywhere; with `resize: square_crop_first`. Its side is
    /// drawn by `min_crop_f` and `max_crop_f` where they are given.
    RandomSquare,
    /// Does not crop.
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
    /// Creates the config of squares of `size`: the smaller side resized, the center cropped, nothing random.
    pub fn square(size: u32) -> Self {
        Self { size: Some(size), ..Self::default() }
    }
}

/// A checked [`TransformConfig`].
#[derive(Debug, Clone)]
pub struct Transform(TransformConfig);

/// Bytes of a pixel that is read: three f32, in the image and in its batch.
const PIXEL: f64 = 24.;

impl Transform {
    /// Checks a config.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the keys that contradict each other.
    pub fn new(config: TransformConfig) -> Result<Self> {
        let wrong = |what: &str| Err(Error::invalid(format!("transform: {what}")));
        if config.size == Some(0) {
            return wrong("size: expected at least 1 pixel, got 0");
        }
        if !(0. ..=1.).contains(&config.flip) {
            return wrong(&format!("flip: expected a probability within 0 to 1, got {}", config.flip));
        }
        if let Some(size) = config.size {
            memory::check("transform: size", format!("{size}x{size}"), f64::from(size).powi(2) * PIXEL)?;
            let square_first = config.resize == Resize::SquareCropFirst;
            if square_first && config.crop == Crop::None {
                return wrong(
                    "crop: expected center, random or random_square with resize: square_crop_first, got none",
                );
            }
            if !square_first && config.crop == Crop::RandomSquare {
                return wrong("resize: expected square_crop_first with crop: random_square");
            }
            if config.resize == Resize::None && config.crop == Crop::None {
                return wrong("resize, crop: expected one of them to reach the size, got none for both");
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
                        "min_crop_f, max_crop_f: expected a size, resize: square_crop_first, and crop: random_square or \
                         center",
                    );
                }
                if !(least > 0. && least <= most && most <= 1.) {
                    return wrong(&format!(
                        "min_crop_f, max_crop_f: expected 0 < min_crop_f <= max_crop_f <= 1, got {least} and {most}"
                    ));
                }
                Ok(Self(config))
            }
            _ => wrong("min_crop_f, max_crop_f: expected both or none, got one"),
        }
    }

    /// Prepares an image; random choices come from `rng`.
    ///
    /// # Errors
    /// Those of [`Transform::place`].
    pub fn apply(&self, image: RgbImage, rng: &mut Rng) -> std::result::Result<RgbImage, String> {
        let (width, height) = image.dimensions();
        Ok(self.place([width, height], rng)?.image(image))
    }

    /// Draws the placement of an image of a width and height; random choices come from `rng`.
    ///
    /// # Errors
    /// A message when the image is smaller than the crop and nothing resizes it, or would be resized to 2^30 pixels.
    pub fn place(&self, stored: [u32; 2], rng: &mut Rng) -> std::result::Result<Placement, String> {
        let config = &self.0;
        let mut placement = match config.size {
            Some(size) => self.to_size(stored, size, rng)?,
            None => Placement::whole(config.interpolation),
        };
        // Drawn even when it has no effect, so that one key does not change the draws of another.
        placement.flip = rng.unit() < config.flip;
        Ok(placement)
    }

    fn to_size(&self, stored: [u32; 2], size: u32, rng: &mut Rng) -> std::result::Result<Placement, String> {
        let config = &self.0;
        let ([width, height], smaller) = (stored, stored[0].min(stored[1]));
        let least = if config.resize == Resize::None { size.max(1) } else { 1 };
        if smaller < least {
            return Err(format!("expected at least {least}x{least} for the crop, got {width}x{height}"));
        }
        let whole = Placement::whole(config.interpolation);
        Ok(match config.resize {
            Resize::SmallestSide => {
                // Python's round, as in albumentations: halves to even.
                let resized = stored.map(|side| {
                    (f64::from(side) * f64::from(size) / f64::from(smaller)).round_ties_even() as u32
                });
                if resized.map(u64::from).iter().product::<u64>() > 1 << 30 {
                    return Err(format!(
                        "expected fewer pixels after resizing, got {width}x{height} to {size}"
                    ));
                }
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

    /// Side of a square that is cropped before it is resized.
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

    /// Draws a square crop of `side`; none without a crop.
    fn cut(&self, [width, height]: [u32; 2], side: u32, rng: &mut Rng) -> Option<PixelRect> {
        let mut start = |length: u32| match self.0.crop {
            Crop::Center => (length - side) / 2,
            _ => rng.below(u64::from(length - side + 1)) as u32,
        };
        (self.0.crop != Crop::None).then(|| [start(width), start(height), side, side])
    }

    /// A crop relative to the whole image. taming-transformers `image_transforms.py:36, 72, 78`: exact to the pixel for
    /// a random crop, and by the aspect ratio, to half a pixel, for the largest center square.
    fn shown(&self, [width, height]: [u32; 2], cut: Option<PixelRect>) -> [f64; 4] {
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

    /// An image with the coordinates of each pixel as its color.
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
    fn a_center_crop_is_centered() {
        let cropped = apply(cut(3, Crop::Center), places(8, 5), 0);
        assert_eq!(cropped.dimensions(), (3, 3));
        assert_eq!(cropped.get_pixel(0, 0).0, [2, 1, 0]); // floor(5 / 2), floor(2 / 2)
    }

    #[test]
    fn a_random_crop_is_uniform() {
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
    fn squares_can_be_cropped_first() {
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
    fn flips_have_their_probability() {
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
    fn an_image_too_small_is_refused() {
        let transform = Transform::new(cut(32, Crop::Center)).unwrap();
        let message = transform.apply(places(40, 20), &mut Rng::of(&[])).unwrap_err();
        assert_eq!(message, "expected at least 32x32 for the crop, got 40x20");
    }

    #[test]
    fn contradictory_keys_are_refused() {
        let check = |config: TransformConfig, expected: &str| {
            assert_eq!(Transform::new(config).unwrap_err().to_string(), format!("transform: {expected}"));
        };
        let base = TransformConfig::square(8);
        check(TransformConfig { size: Some(0), ..base.clone() }, "size: expected at least 1 pixel, got 0");
        check(
            TransformConfig { flip: 1.5, ..base.clone() },
            "flip: expected a probability within 0 to 1, got 1.5",
        );
        check(
            TransformConfig { crop: Crop::RandomSquare, ..base.clone() },
            "resize: expected square_crop_first with crop: random_square",
        );
        check(
            TransformConfig { crop: Crop::None, resize: Resize::SquareCropFirst, ..base.clone() },
            "crop: expected center, random or random_square with resize: square_crop_first, got none",
        );
        check(
            TransformConfig { crop: Crop::None, resize: Resize::None, ..base },
            "resize, crop: expected one of them to reach the size, got none for both",
        );
        let shares = |least, most| TransformConfig {
            resize: Resize::SquareCropFirst,
            min_crop_f: least,
            max_crop_f: most,
            ..TransformConfig::square(8)
        };
        check(shares(Some(0.5), None), "min_crop_f, max_crop_f: expected both or none, got one");
        check(
            shares(Some(0.9), Some(0.5)),
            "min_crop_f, max_crop_f: expected 0 < min_crop_f <= max_crop_f <= 1, got 0.9 and 0.5",
        );
        check(
            TransformConfig { resize: Resize::SmallestSide, ..shares(Some(0.5), Some(1.)) },
            "min_crop_f, max_crop_f: expected a size, resize: square_crop_first, and crop: random_square or center",
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
    fn a_placement_records_its_crop() {
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
            assert!((placement.shown()[0] - f64::from(10 - x) / 30.).abs() < 1e-12, "{x}");
        }
    }
}
