//! Denoisers: models that predict the clean sample and the noise. Guidance and thresholding are denoisers that own
//! another one; an inpainting mask is not one, since it changes x itself ([`InpaintMask`](crate::InpaintMask)).

use tch::Tensor;

use crate::NoiseLevel;

/// A prediction: the clean sample and the noise, with x = α·x_0 + σ·ε unless a denoiser changed one of them.
#[derive(Debug)]
pub struct Denoised {
    /// The clean sample.
    pub x0: Tensor,
    /// The noise.
    pub eps: Tensor,
}

/// A denoising model: a network with its conditioning, or any closure.
pub trait Denoiser {
    /// Splits `x` at noise level `at` into the clean sample and the noise.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`; returns two of the same
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised;
}

impl<F: Fn(&Tensor, NoiseLevel) -> Denoised> Denoiser for F {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        self(x, at)
    }
}

/// Static thresholding: clamps the clean sample to `[-range, range]`. For models of pixels; latents have no such bound.
///
/// The predicted noise is unchanged, as in CompVis and by default in diffusers.
/// CompVis `ddpm.py:235` `clip_denoised`, whose range is 1.
pub struct StaticThresholding<'a> {
    /// The denoiser it wraps.
    pub denoiser: Box<dyn Denoiser + 'a>,
    /// The bound, above 0.
    pub range: f64,
}

impl Denoiser for StaticThresholding<'_> {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        let Denoised { x0, eps } = self.denoiser.denoise(x, at);
        Denoised { x0: x0.clamp(-self.range, self.range), eps }
    }
}

/// Dynamic thresholding: clamps each clean sample to a quantile of its own magnitudes and divides by it, if that
/// quantile is above 1. For models of pixels.
///
/// Saharia et al. 2022 (arXiv:2205.11487), §2.3; the cap is diffusers' (`scheduling_ddpm.py`, `_threshold_sample`).
pub struct DynamicThresholding<'a> {
    /// The denoiser it wraps.
    pub denoiser: Box<dyn Denoiser + 'a>,
    /// The quantile, in `[0, 1]`; 0.995 in the paper.
    pub ratio: f64,
    /// The largest bound; at 1, the smallest, this is [`StaticThresholding`].
    pub max: f64,
}

impl Denoiser for DynamicThresholding<'_> {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        let Denoised { x0, eps } = self.denoiser.denoise(x, at);
        let magnitudes = x0.flatten(1, -1).abs(); // [B, C·h·w]
        let bound = magnitudes.quantile_scalar(self.ratio, 1, false, "linear").clamp(1., self.max); // [B]
        let mut size = vec![1; x0.dim()];
        size[0] = -1;
        let bound = bound.view(size.as_slice());
        Denoised { x0: x0.maximum(&-&bound).minimum(&bound) / bound, eps }
    }
}
