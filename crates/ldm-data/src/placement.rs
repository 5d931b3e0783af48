//! Where an image's pixels come from: which part is cut, to what it is resized, whether it is mirrored.

use image::imageops::{crop_imm, flip_horizontal_in_place};
use image::{GrayImage, RgbImage};

use crate::interpolation::Interpolation;
use crate::resize::{resize, resize_labels};

/// A part of an image: `[x, y, width, height]` in pixels.
pub(crate) type Part = [u32; 4];

/// What a [`Transform`](crate::Transform) does to one image, every draw made: the same can be done to its label map,
/// its mask and its boxes.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The part of the stored image that is taken; the whole where there is none.
    pub(crate) before: Option<Part>,
    /// What it is resized to, where it is.
    pub(crate) resized: Option<[u32; 2]>,
    /// The part of that which is kept; the whole where there is none.
    pub(crate) after: Option<Part>,
    /// How values between pixels are found.
    pub(crate) interpolation: Interpolation,
    /// `[x0, y0, width, height]` of what is shown, relative to the stored image, before it is mirrored.
    pub crop: [f64; 4],
    /// Whether it is mirrored left to right.
    pub flip: bool,
}

impl Placement {
    /// All of an image, as it is.
    pub(crate) fn whole(interpolation: Interpolation) -> Self {
        Self { before: None, resized: None, after: None, interpolation, crop: [0., 0., 1., 1.], flip: false }
    }

    /// The image's pixels.
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

    /// The pixels of a map of the image: nearest, so that no value appears that was not there.
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

    /// [`Placement::crop`], mirrored where the image is.
    pub fn shown(&self) -> [f64; 4] {
        if self.flip { mirrored(self.crop) } else { self.crop }
    }
}

/// A rectangle of an image that is mirrored left to right.
pub(crate) fn mirrored([x, y, width, height]: [f64; 4]) -> [f64; 4] {
    [1. - (x + width), y, width, height]
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;
    use crate::{Crop, Resize, Rng, Transform, TransformConfig};

    #[test]
    fn a_map_goes_where_its_image_goes() {
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
