//! Decoding of latents into images.

use ldm_autoencoder::FirstStage;
use ldm_core::nn::skip_init;
use ldm_core::{Error, Result, Tiles};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::LatentDiffusion;

/// Decoded images.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// `[B, C', H, W]` f32 in `[-1, 1]`, not clamped.
    pub(crate) images: Tensor,
    /// Half precision overflowed, and the first stage was run in f32.
    pub(crate) in_f32: bool,
}

impl LatentDiffusion {
    /// Decodes scaled latents into images, not clamped. CompVis `ddpm.py:706`.
    ///
    /// Decodes in the dtype of the weights; half precision may overflow, which the caller must check.
    ///
    /// # Shapes
    /// - `z`: `[B, C, h, w]`; returns `[B, C', f·h, f·w]` f32
    pub fn decode(&self, z: &Tensor) -> Tensor {
        decode(&*self.first_stage, &self.to_model(&self.unscaled(z)), None)
    }

    /// [`LatentDiffusion::decode`], in `tiles` where given, and again in f32 where half precision overflows, as in the
    /// decoders of some published models.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the latents, or their images in f32, hold NaN or Inf.
    pub(crate) fn decode_finite(&self, z: &Tensor, tiles: Option<&Tiles>) -> Result<Decoded> {
        if !finite(z) {
            return Err(Error::invalid(format!(
                "latents: expected finite values, got NaN or Inf in {:?}; try more steps, less guidance or f32",
                self.kind()
            )));
        }
        let z = self.unscaled(z);
        let images = decode(&*self.first_stage, &self.to_model(&z), tiles);
        if finite(&images) {
            return Ok(Decoded { images, in_f32: false });
        }
        if self.kind() != Kind::Float {
            let (_vs, first_stage) = self.first_stage_in_f32()?;
            let images = decode(&*first_stage, &z.to_device(self.vs().device()), tiles);
            if finite(&images) {
                return Ok(Decoded { images, in_f32: true });
            }
        }
        Err(Error::invalid("images: expected finite values, got NaN or Inf from the first stage"))
    }

    fn unscaled(&self, z: &Tensor) -> Tensor {
        z.to_kind(Kind::Float) / self.scale_factor
    }

    /// The first stage with the same weights in f32, and its store.
    fn first_stage_in_f32(&self) -> Result<(VarStore, Box<dyn FirstStage>)> {
        let vs = VarStore::new(self.vs().device());
        let root = vs.root() / "first_stage_model";
        let first_stage = skip_init(|| ldm_autoencoder::build(&root, &self.config.first_stage_config))?;
        let weights = self.vs().variables();
        tch::no_grad(|| vs.variables().iter_mut().for_each(|(name, tensor)| tensor.copy_(&weights[name])));
        Ok((vs, first_stage))
    }
}

fn decode(first_stage: &dyn FirstStage, z: &Tensor, tiles: Option<&Tiles>) -> Tensor {
    tch::no_grad(|| match tiles {
        None => first_stage.decode(z),
        Some(tiles) => first_stage.decode_tiled(z, tiles),
    })
    .to_kind(Kind::Float)
}

fn finite(x: &Tensor) -> bool {
    x.isfinite().all().int64_value(&[]) == 1
}
