//! Placements: crop, size and flip of one image.

use image::imageops::{crop_imm, flip_horizontal_in_place};
use image::{GrayImage, RgbImage};

use crate::image::interpolation::Interpolation;
use crate::image::resize::{resize, resize_labels};

/// A rectangle of an image: `[x, y, width, height]` in pixels.
pub(crate) type PixelRect = [u32; 4];

/// A [`Transform`](crate::Transform) of one image with every random choice made, which applies equally to its label
/// map, its mask and its boxes.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Crop of the stored image, before the resize.
    pub(crate) before: Option<PixelRect>,
    /// Size after the resize.
    pub(crate) resized: Option<[u32; 2]>,
    /// Crop after the resize.
    pub(crate) after: Option<PixelRect>,
    /// Interpolation of the resize.
    pub(crate) interpolation: Interpolation,
    /// `[x0, y0, width, height]` of the result, relative to the stored image, before the flip.
    pub crop: [f64; 4],
    /// Flips the result horizontally.
    pub flip: bool,
}

impl Placement {
    /// The placement that changes nothing.
    pub(crate) fn whole(interpolation: Interpolation) -> Self {
        Self { before: None, resized: None, after: None, interpolation, crop: [0., 0., 1., 1.], flip: false }
    }

    /// Applies the placement to an image.
    pub fn image(&self, mut image: RgbImage) -> RgbImage {
        if let Some([x, y, width, height]) = self.before {
            image = crop_imm(&image, x, y, width, height).to_image();
        }
        if let Some([width, height]) = self.resized {
            image = resize(&image, width, height, self.interpolation);
        }
        if let Some([x, y, width, height]) = self.after {
            image = crop_imm(&image, x, y, width, height).to_image();
        }
        if self.flip {
            flip_horizontal_in_place(&mut image);
        }
        image
    }

    /// Applies the placement to a label map of the image, by the nearest pixel, so that no new values appear.
    pub fn labels(&self, mut map: GrayImage) -> GrayImage {
        if let Some([x, y, width, height]) = self.before {
            map = crop_imm(&map, x, y, width, height).to_image();
        }
        if let Some([width, height]) = self.resized {
            map = resize_labels(&map, width, height, self.interpolation);
        }
        if let Some([x, y, width, height]) = self.after {
            map = crop_imm(&map, x, y, width, height).to_image();
        }
        if self.flip {
            flip_horizontal_in_place(&mut map);
        }
        map
    }

    /// [`Placement::crop`] after the flip.
    pub fn shown(&self) -> [f64; 4] {
        if self.flip { flipped(self.crop) } else { self.crop }
    }
}

/// Flips a rectangle of an image horizontally.
pub(crate) fn flipped([x, y, width, height]: [f64; 4]) -> [f64; 4] {
    [1. - (x + width), y, width, height]
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;
    use crate::{Crop, Resize, Rng, Transform, TransformConfig};

    #[test]
    fn a_label_map_follows_its_image() {
        let image = RgbImage::from_fn(40, 28, |x, y| Rgb([x as u8, y as u8, 0]));
        let map = GrayImage::from_fn(40, 28, |x, y| Luma([(x * 5 + y * 3) as u8]));
        for (resize, crop) in [
            (Resize::SmallestSide, Crop::Random),
            (Resize::SquareCropFirst, Crop::RandomSquare),
            (Resize::Exact, Crop::Center),
            (Resize::None, Crop::Random),
        ] {
            let config = TransformConfig {
                resize,
                crop,
                flip: 0.5,
                interpolation: Interpolation::Nearest,
                ..TransformConfig::square(14)
            };
            let transform = Transform::new(config).unwrap();
            for seed in 0..20 {
                let placement = transform.place([40, 28], &mut Rng::of(&[seed])).unwrap();
                let (image, map) = (placement.image(image.clone()), placement.labels(map.clone()));
                for (pixel, label) in image.pixels().zip(map.pixels()) {
                    let [x, y, _] = pixel.0.map(u32::from);
                    assert_eq!(u32::from(label.0[0]), (x * 5 + y * 3) % 256);
                }
            }
        }
    }
}
