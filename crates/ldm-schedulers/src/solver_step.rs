//! The frame that solvers share: down a ladder, a step at a time.

use std::fmt;

use ldm_core::NoiseSource;
use tch::Tensor;

use crate::{Denoised, Denoiser, InpaintMask, NoiseLevel, SamplingStep};

/// What a solver walks with.
pub struct SamplerRun<'a> {
    /// What it asks.
    pub denoiser: &'a dyn Denoiser,
    /// The ladder: noisiest first, and the level the last step ends at.
    pub levels: &'a [NoiseLevel],
    /// The part of the sample that is not to change.
    pub kept: Option<&'a InpaintMask>,
    /// Where its noise comes from.
    pub noise: &'a mut dyn NoiseSource,
    /// Sees every step.
    pub observe: &'a mut dyn FnMut(SamplingStep),
}

/// One step of a [`SamplerRun`], after the denoiser was asked.
pub struct SolverStep<'a> {
    /// Number of the step, from 0.
    pub index: usize,
    /// How many steps there are.
    pub steps: usize,
    /// The level of `x`.
    pub from: NoiseLevel,
    /// The level the step ends at.
    pub to: NoiseLevel,
    /// The noisy sample.
    pub x: &'a Tensor,
    /// The denoiser's answer.
    pub denoised: Denoised,
    /// Where noise comes from.
    pub noise: &'a mut dyn NoiseSource,
}

impl SamplerRun<'_> {
    /// Goes down the ladder: before each step what is kept is put in its place, the denoiser is asked and `observe` is
    /// called; `step` says where the sample goes.
    pub fn down(self, mut x: Tensor, mut step: impl FnMut(SolverStep) -> Tensor) -> Tensor {
        let Self { denoiser, levels, kept, noise, observe } = self;
        let steps = levels.len().saturating_sub(1);
        for (index, pair) in levels.windows(2).enumerate() {
            let [from, to] = [pair[0], pair[1]];
            if let Some(kept) = kept {
                x = kept.blend(&x, from, noise);
            }
            let denoised = denoiser.denoise(&x, from);
            observe(SamplingStep { index, level: from, x: &x, denoised: &denoised });
            x = step(SolverStep { index, steps, from, to, x: &x, denoised, noise: &mut *noise });
        }
        x
    }
}

impl SolverStep<'_> {
    /// The derivative of the sample over σ/α: d(x/α) / d(σ/α), which is the noise (Karras et al. 2022, eq. 3).
    ///
    /// It is taken from x_0 and not from the denoiser's noise, so that what holds x_0 in bounds reaches every solver.
    pub fn derivative(&self) -> Tensor {
        derivative(self.x, &self.denoised.x0, self.from)
    }

    /// The last step of a walk of fewer than 15, at which multistep solvers fall back to the first order where they
    /// are told to (CompVis stable-diffusion `dpm_solver.py:1094`).
    pub(crate) fn is_last_of_few(&self) -> bool {
        self.index + 1 == self.steps && self.steps < 15
    }
}

/// (x − α·x_0) / σ.
pub(crate) fn derivative(x: &Tensor, x0: &Tensor, at: NoiseLevel) -> Tensor {
    linear_combination(&[(1. / at.sigma, x), (-at.alpha / at.sigma, x0)])
}

/// The sum of tensors, each times its factor. A step of every solver is such a sum, whose factors are f64 on the host:
/// nothing is read from the device.
pub(crate) fn linear_combination(terms: &[(f64, &Tensor)]) -> Tensor {
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
            .field("kept", &self.kept)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SolverStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { index, steps, from, to, .. } = self;
        write!(f, "SolverStep {{ {index} of {steps}, {from:?} to {to:?} }}")
    }
}
