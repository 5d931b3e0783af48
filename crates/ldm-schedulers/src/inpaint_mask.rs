//! The part of a sample that is not to change, and the way up to a level in the middle of a ladder.

use ldm_core::NoiseSource;
use tch::Tensor;

use crate::NoiseLevel;

/// A clean sample of which a part is kept: put in its place before each step, with the noise of that level.
///
/// After the last step nothing is put back: what is kept went through the model once, as in the reference.
/// CompVis `ddim.py:143`.
#[derive(Debug)]
pub struct InpaintMask {
    /// `[B, C, h, w]`: the clean sample.
    pub x0: Tensor,
    /// `[B, 1, h, w]`, or whatever broadcasts: 1 keeps, 0 lets the solver go on.
    pub mask: Tensor,
}

impl InpaintMask {
    /// `x` with the kept part at noise level `at`, from fresh noise.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`; returns the same
    pub fn blend(&self, x: &Tensor, at: NoiseLevel, noise: &mut dyn NoiseSource) -> Tensor {
        let mut kept = &self.x0 * at.alpha;
        if at.sigma > 0. {
            kept += noise.like(&self.x0) * at.sigma;
        }
        x.lerp_tensor(&kept, &self.mask)
    }
}

/// Noises a clean sample for the last `steps` steps of a ladder, and gives the part of the ladder that is left:
/// walking it down is the reference's `decode`.
///
/// The reference takes the level above the one the walk begins at: the model is told of a little less noise than there
/// is. At the full ladder, where the reference fails, there is no level above and the first is taken.
///
/// # Shapes
/// - `x0`: `[B, C, h, w]`; returns the same
///
/// # Panics
/// When the ladder has fewer than `steps` steps, or none.
///
/// CompVis stable-diffusion `ddim.py:207` `stochastic_encode`, `:223` `decode`.
pub fn stochastic_encode<'a>(
    x0: &Tensor,
    ladder: &'a [NoiseLevel],
    steps: usize,
    noise: &mut dyn NoiseSource,
) -> (Tensor, &'a [NoiseLevel]) {
    assert!(steps < ladder.len(), "a ladder of {} levels has fewer than {steps} steps", ladder.len());
    let rest = &ladder[ladder.len() - 1 - steps..];
    let at = ladder[(ladder.len() - 1 - steps).saturating_sub(1)];
    (x0 * at.alpha + noise.like(x0) * at.sigma, rest)
}
