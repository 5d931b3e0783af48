//! The loop that solvers share, and the arithmetic of a step.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_core::NoiseSource;
use tch::Tensor;

use crate::ancestral_noise::ShapedNoise;
use crate::{AncestralNoise, Denoised, Denoiser, InpaintMask, NoiseLevel, SamplingStep};

/// The inputs of one sampling run.
pub struct SamplerRun<'a> {
    /// The model.
    pub denoiser: &'a dyn Denoiser,
    /// The noise levels visited, noisiest first, and the one the last step ends at.
    pub levels: &'a [NoiseLevel],
    /// The known part of the sample, for inpainting.
    pub mask: Option<&'a InpaintMask>,
    /// The source of the solver's and the mask's noise.
    pub noise: &'a mut dyn NoiseSource,
    /// Temperature and dropout of the solver's noise.
    pub ancestral: AncestralNoise,
    /// Called once per step, also by a solver that evaluates the denoiser twice.
    pub observe: &'a mut dyn FnMut(SamplingStep),
    /// Ends the run before its next step once it is set; the sample is then of no use.
    pub stop: Option<&'a AtomicBool>,
}

/// One step of a [`SamplerRun`], after the denoiser was evaluated at its start.
pub struct SolverStep<'a> {
    /// Number of the step, from 0.
    pub index: usize,
    /// The number of steps of the run.
    pub steps: usize,
    /// The level of `x`.
    pub from: NoiseLevel,
    /// The level the step ends at.
    pub to: NoiseLevel,
    /// The noisy sample.
    pub x: &'a Tensor,
    /// The prediction at `x`.
    pub denoised: Denoised,
    /// The source of noise.
    pub noise: &'a mut dyn NoiseSource,
}

/// The point of a step at which the mask is blended in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlendOrder {
    /// Before the denoiser is evaluated (CompVis `ddim.py:143`).
    Before,
    /// After the step, with the noise of the level the step started from (CompVis `ddpm.py:1203`).
    After,
}

impl SamplerRun<'_> {
    /// Runs `step` for each pair of neighboring levels, with the mask blended in before each. `step` returns the sample at
    /// its `to`.
    pub fn each_step(self, x: Tensor, step: impl FnMut(SolverStep) -> Tensor) -> Tensor {
        self.each_step_blended(BlendOrder::Before, x, step)
    }

    /// [`each_step`](Self::each_step) with the mask blended in before or after each step.
    pub fn each_step_blended(
        self,
        order: BlendOrder,
        mut x: Tensor,
        mut step: impl FnMut(SolverStep) -> Tensor,
    ) -> Tensor {
        let Self { denoiser, levels, mask, noise, ancestral, observe, stop } = self;
        let [before, after] =
            [BlendOrder::Before, BlendOrder::After].map(|when| mask.filter(|_| when == order));
        let steps = levels.len().saturating_sub(1);
        for (index, pair) in levels.windows(2).enumerate() {
            if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                break;
            }
            let [from, to] = [pair[0], pair[1]];
            if let Some(mask) = before {
                x = mask.blend(&x, from, noise);
            }
            let denoised = denoiser.denoise(&x, from);
            observe(SamplingStep { index, level: from, x: &x, denoised: &denoised });
            let mut shaped = ShapedNoise { source: &mut *noise, ancestral };
            x = step(SolverStep { index, steps, from, to, x: &x, denoised, noise: &mut shaped });
            if let Some(mask) = after {
                x = mask.blend(&x, from, noise);
            }
        }
        x
    }
}

impl SolverStep<'_> {
    /// [`derivative`] at the start of the step.
    ///
    /// It is computed from x_0 and not from the predicted noise, so that thresholding reaches every solver.
    pub fn derivative(&self) -> Tensor {
        derivative(self.x, &self.denoised.x0, self.from)
    }

    /// True at the last step of a run of fewer than 15, at which multistep solvers with `lower_order_final` fall
    /// back to the first order (CompVis stable-diffusion `dpm_solver.py:1094`).
    pub(crate) fn is_last_of_few(&self) -> bool {
        self.index + 1 == self.steps && self.steps < 15
    }
}

/// The derivative of the probability flow over σ/α: d(x/α) / d(σ/α) = (x − α·x_0) / σ, which is the noise (Karras et al.
/// 2022, eq. 3; k-diffusion `to_d`).
pub fn derivative(x: &Tensor, x0: &Tensor, at: NoiseLevel) -> Tensor {
    linear_combination(&[(1. / at.sigma, x), (-at.alpha / at.sigma, x0)])
}

/// The sum of tensors, each times its factor, in the order given. Every solver's step is such a sum, whose factors are f64
/// on the host: nothing is read back from the device.
///
/// # Panics
/// When there are no terms.
pub fn linear_combination(terms: &[(f64, &Tensor)]) -> Tensor {
    let (weight, tensor) = terms[0];
    let mut sum = tensor * weight;
    for (weight, tensor) in &terms[1..] {
        sum += *tensor * *weight;
    }
    sum
}

impl fmt::Debug for SamplerRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("SamplerRun")
            .field("levels", &self.levels)
            .field("mask", &self.mask)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SolverStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { index, steps, from, to, .. } = self;
        write!(f, "SolverStep {{ {index} of {steps}, {from:?} to {to:?} }}")
    }
}
