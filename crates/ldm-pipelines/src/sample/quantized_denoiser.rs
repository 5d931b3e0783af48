//! Denoisers whose clean samples are codebook entries.

use ldm_core::{Error, Result};
use ldm_schedulers::{Denoised, Denoiser, NoiseLevel};
use tch::{Kind, Tensor};

use crate::LatentDiffusion;

/// A denoiser whose clean sample is quantized to the codebook of a VQ first stage at every step; the predicted noise is
/// unchanged.
///
/// CompVis `ddim.py:195`, `ddpm.py:1068` `quantize_denoised`, which quantize the scaled latent; here it is unscaled first,
/// which is the same for VQ models without a scale factor.
pub struct QuantizedDenoiser<'a> {
    denoiser: Box<dyn Denoiser + 'a>,
    model: &'a LatentDiffusion,
}

impl<'a> QuantizedDenoiser<'a> {
    /// Checks that the first stage of a model has a codebook.
    ///
    /// # Errors
    /// [`Error::Invalid`] without one.
    pub(crate) fn check(model: &LatentDiffusion) -> Result<()> {
        if model.first_stage.codebook().is_some() {
            return Ok(());
        }
        Err(Error::invalid(
            "quantize denoised: expected a model on a VQ first stage, got one without a codebook",
        ))
    }

    /// Quantizes the clean samples of `denoiser`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the first stage of `model` has no codebook.
    pub fn new(denoiser: Box<dyn Denoiser + 'a>, model: &'a LatentDiffusion) -> Result<Self> {
        Self::check(model)?;
        Ok(Self { denoiser, model })
    }
}

impl Denoiser for QuantizedDenoiser<'_> {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        let Denoised { x0, eps } = self.denoiser.denoise(x, at);
        let scale = self.model.scale_factor;
        let z = self.model.to_model(&(x0 / scale));
        let codebook = self.model.first_stage.codebook().expect("checked before sampling");
        Denoised { x0: codebook.quantize(&z).to_kind(Kind::Float) * scale, eps }
    }
}
