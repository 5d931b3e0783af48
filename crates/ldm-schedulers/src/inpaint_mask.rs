//! Inpainting masks, and noising a sample to a level in the middle of a run.

use ldm_core::NoiseSource;
use tch::Tensor;

use crate::NoiseLevel;

/// A clean sample and the mask of its known part, which is blended in at each step with the noise of that level
/// ([`BlendOrder`](crate::BlendOrder)).
///
/// Nothing is blended in after the last step of a sampler that blends before it: the known part goes through the model
/// once, as in CompVis (`ddim.py:143`).
#[derive(Debug)]
pub struct InpaintMask {
    /// `[B, C, h, w]`: the clean sample.
    pub x0: Tensor,
    /// `[B, 1, h, w]`, or any shape that broadcasts: 1 where the sample is known, 0 where it is generated.
    pub mask: Tensor,
}

impl InpaintMask {
    /// `x` with the known part replaced by `x0` at noise level `at`, with fresh noise.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`; returns the same
    pub fn blend(&self, x: &Tensor, at: NoiseLevel, noise: &mut dyn NoiseSource) -> Tensor {
        let mut known = &self.x0 * at.alpha;
        if at.sigma > 0. {
            known += noise.like(&self.x0) * at.sigma;
        }
        x.lerp_tensor(&known, &self.mask)
    }
}

/// Noises a clean sample for the last `steps` steps of a run, and returns it with the levels of these steps: sampling
/// over them is CompVis' `decode`.
///
/// CompVis uses the level before the one the run starts at: the model is given a timestep of a little less noise than
/// there is. With all steps, where CompVis fails, there is no level before and the first is used.
///
/// # Shapes
/// - `x0`: `[B, C, h, w]`; returns the same
///
/// # Panics
/// When there are fewer than `steps` steps.
///
/// CompVis stable-diffusion `ddim.py:207` `stochastic_encode`, `:223` `decode`.
pub fn stochastic_encode<'a>(
    x0: &Tensor,
    levels: &'a [NoiseLevel],
    steps: usize,
    noise: &mut dyn NoiseSource,
) -> (Tensor, &'a [NoiseLevel]) {
    assert!(steps < levels.len(), "steps: expected at most {}, got {steps}", levels.len().saturating_sub(1));
    let rest = &levels[levels.len() - 1 - steps..];
    let at = levels[(levels.len() - 1 - steps).saturating_sub(1)];
    (x0 * at.alpha + noise.like(x0) * at.sigma, rest)
}
