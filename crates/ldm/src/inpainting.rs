//! Compositing of inpainted images.

use image::RgbImage;
use ldm_core::{Error, Result, channels, image as images, memory};
use tch::{Device, Kind, Tensor};

/// An image of which a part is sampled anew, and the composite of both.
#[derive(Debug)]
pub struct Inpainting {
    image: Tensor,
    mask: Tensor,
    /// The fraction of the sampled image in the composite, `[1, 1, H, W]`.
    share: Tensor,
}

/// Extends an image by `[left, right, top, bottom]` pixels; returns it and the mask of the added area. The area starts as
/// the nearest pixels, so that the first stage sees no edge.
///
/// # Shapes
/// - returns `[1, 3, H, W]` in `[-1, 1]` and `[1, 1, H, W]`, 0 or 1
///
/// # Errors
/// [`Error::Invalid`] for a size that does not fit in memory.
pub fn extended(image: &RgbImage, sides: [i64; 4]) -> Result<[Tensor; 2]> {
    let [left, right, top, bottom] = sides;
    let size = [i64::from(image.height()) + top + bottom, i64::from(image.width()) + left + right];
    // The image and its mask.
    let bytes = 4. * 4. * size[0] as f64 * size[1] as f64;
    memory::check("outpainted image", format!("{}x{}", size[0], size[1]), bytes)?;
    let image = images::from_rgb8(image).unsqueeze(0);
    let mask = 1. - Tensor::ones_like(&image.narrow(1, 0, 1)).constant_pad_nd(sides);
    Ok([image.replication_pad2d(sides), mask])
}

/// The depth of a mask of all pixels.
const ENDLESS: u32 = u32::MAX;

/// Distances of the pixels of a mask `[1, 1, H, W]` to the nearest pixel outside of it, by moves of a king: 1 at its border.
/// Past the image's border nothing is outside, so that a mask of all pixels is endlessly deep.
///
/// Rosenfeld and Pfaltz 1966 (Journal of the ACM 13, 4): two passes are exact, whatever the depth.
fn depths(mask: &Tensor) -> Result<Vec<u32>> {
    let (_, _, height, width) = mask.size4()?;
    let (height, width) = (height as usize, width as usize);
    let inside = Vec::<f32>::try_from(mask.to_kind(Kind::Float).to_device(Device::Cpu).reshape([-1]))?;
    let mut depths: Vec<u32> = inside.iter().map(|value| if *value > 0. { ENDLESS } else { 0 }).collect();
    for forward in [true, false] {
        for step in 0..height * width {
            let at = if forward { step } else { height * width - 1 - step };
            let (x, y) = (at % width, at / width);
            // The neighbors that this pass has seen: one in the row, three in the row before.
            let row = if forward { y.checked_sub(1) } else { Some(y + 1).filter(|row| *row < height) };
            let side = if forward { x.checked_sub(1) } else { Some(x + 1).filter(|side| *side < width) };
            let beside = side.map(|side| y * width + side);
            let before = row.into_iter().flat_map(|row| {
                (x.saturating_sub(1)..(x + 2).min(width)).map(move |column| row * width + column)
            });
            let nearest = beside.into_iter().chain(before).map(|at| depths[at]).min();
            depths[at] = depths[at].min(nearest.unwrap_or(ENDLESS).saturating_add(1));
        }
    }
    Ok(depths)
}

impl Inpainting {
    /// Samples `image` anew where `mask` is 1. Over `feather` pixels inside the border of the mask the sampled part
    /// fades into the image.
    ///
    /// # Shapes
    /// - `image`: `[1, 3, H, W]` in `[-1, 1]`; `mask`: `[1, 1, H, W]`, 0 or 1
    ///
    /// # Errors
    /// [`Error::Invalid`] when the mask is nowhere as deep as `feather`.
    pub fn new(image: Tensor, mask: Tensor, feather: u32) -> Result<Self> {
        let steps = i64::from(feather) + 1;
        let depths = depths(&mask)?;
        let deepest = depths.iter().max().copied().unwrap_or_default().max(1);
        if deepest < ENDLESS && i64::from(deepest) < steps {
            let most = deepest - 1;
            return Err(Error::invalid(format!(
                "feather: expected at most {most} for a mask {deepest} pixels deep, got {feather}"
            )));
        }
        let depth = |depth: &u32| i64::from(*depth).min(steps) as f32;
        let share = Tensor::from_slice(&depths.iter().map(depth).collect::<Vec<_>>());
        let share = share.view_as(&mask).to_device(mask.device()) / steps as f64;
        Ok(Self { image, mask, share })
    }

    /// The image.
    pub fn image(&self) -> &Tensor {
        &self.image
    }

    /// The mask, 1 where the image is sampled anew.
    pub fn mask(&self) -> &Tensor {
        &self.mask
    }

    /// Pastes the known part of the image into sampled images: bytes outside the mask are unchanged, since reading and
    /// writing them is the identity.
    ///
    /// # Shapes
    /// - `sampled`: `[B, C, H, W]` of 1 to 4 channels, to which the image is converted; returns the same
    pub fn composite(&self, sampled: &Tensor) -> Tensor {
        let image = channels::convert(&self.image, sampled.size()[1]);
        let (share, image) = (self.share.to_device(sampled.device()), image.to_device(sampled.device()));
        let mixed: Tensor = sampled.clamp(-1., 1.) * &share + &image * (1. - &share);
        mixed.where_self(&share.gt(0.), &image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share by erosion, a pixel at a time.
    fn eroded(mask: &Tensor, feather: u32) -> Tensor {
        let (mut share, mut rest) = (mask.copy(), mask.shallow_clone());
        for _ in 0..feather {
            rest = -(-&rest).max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false);
            share += &rest;
        }
        share / f64::from(feather + 1)
    }

    #[test]
    fn the_share_is_that_of_erosion() {
        let image = Tensor::zeros([1, 3, 24, 40], (Kind::Float, Device::Cpu));
        let mask = |known: &[[i64; 4]]| {
            let mask = Tensor::ones([1, 1, 24, 40], (Kind::Float, Device::Cpu));
            for [top, height, left, width] in known {
                let _ = mask.narrow(2, *top, *height).narrow(3, *left, *width).fill_(0.);
            }
            mask
        };
        for known in [&[[0, 1, 0, 1]][..], &[[3, 2, 5, 30], [20, 4, 0, 1]], &[[0, 24, 0, 36]]] {
            for feather in [0, 1, 3] {
                let made = Inpainting::new(image.shallow_clone(), mask(known), feather).unwrap();
                assert_eq!(made.share, eroded(&mask(known), feather), "{known:?}, {feather}");
            }
        }
        let deep = Inpainting::new(image.shallow_clone(), mask(&[[0, 24, 0, 36]]), u32::MAX).unwrap_err();
        assert!(
            deep.to_string().starts_with("feather: expected at most 3 for a mask 4 pixels deep"),
            "{deep}"
        );
    }

    /// Past the image's border nothing fades: erosion would go on for 2^32 steps.
    #[test]
    fn a_mask_of_all_pixels_takes_no_longer_for_a_wide_feather() {
        let image = Tensor::zeros([1, 3, 64, 64], (Kind::Float, Device::Cpu));
        let mask = Tensor::ones([1, 1, 64, 64], (Kind::Float, Device::Cpu));
        let made = Inpainting::new(image, mask.shallow_clone(), u32::MAX).unwrap();
        assert_eq!(made.share, mask);
    }
}
