//! Compositing of inpainted images.

use image::RgbImage;
use ldm_core::{Error, Result, channels, image as images, memory};
use tch::Tensor;

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
        let mut share = mask.copy(); // added to in place
        let mut rest = mask.shallow_clone();
        for done in 0..feather {
            // One pixel less on every side; past the image's border nothing fades.
            rest = -(-&rest).max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false);
            if rest.any().int64_value(&[]) == 0 {
                let depth = done + 1;
                return Err(Error::invalid(format!(
                    "feather: expected at most {done} for a mask {depth} pixels deep, got {feather}"
                )));
            }
            share += &rest;
        }
        Ok(Self { image, mask, share: share / f64::from(feather + 1) })
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
