//! A model of what is under the noise. Guidance, clamping and masking are denoisers around denoisers.

use tch::Tensor;

use crate::NoiseLevel;

/// The two things a prediction says, tied by x = α·x_0 + σ·ε until a denoiser changes one of them.
#[derive(Debug)]
pub struct Denoised {
    /// The clean sample.
    pub x0: Tensor,
    /// The noise.
    pub eps: Tensor,
}

/// A model of what is under the noise: a network with its conditioning, or any closure.
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

/// Holds the clean sample in `[-1, 1]`, for models of pixels; latents have no such bound.
///
/// The noise stays what the network said, as in the reference and in diffusers' default.
/// CompVis `ddpm.py:235` `clip_denoised`.
pub struct Clamped<'a>(pub &'a dyn Denoiser);

impl Denoiser for Clamped<'_> {
    fn denoise(&self, x: &Tensor, at: NoiseLevel) -> Denoised {
        let Denoised { x0, eps } = self.0.denoise(x, at);
        Denoised { x0: x0.clamp(-1., 1.), eps }
    }
}
