//! Solvers: how a ladder is walked down.

use std::fmt;

use ldm_core::NoiseSource;
use tch::Tensor;

use crate::{Denoised, Denoiser, NoiseLevel, SamplerRun};

/// What an observer sees of a step: the sample it starts from, and what the denoiser said of it.
#[derive(Debug)]
pub struct SamplingStep<'a> {
    /// Number of the step, from 0.
    pub index: usize,
    /// The noise level of `x`.
    pub level: NoiseLevel,
    /// The noisy sample.
    pub x: &'a Tensor,
    /// The denoiser's answer.
    pub denoised: &'a Denoised,
}

/// A solver. Its state is its local variables: a sampler is plain data and can be used again.
pub trait Sampler: fmt::Debug {
    /// Takes `x` down `walk`'s ladder, noisiest level first, and returns the sample at the last of them.
    ///
    /// Noise is drawn only by a step that uses it. `observe` is called once a step of the ladder, also by a solver
    /// that asks the denoiser twice.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`; returns the same
    fn walk(&self, walk: SamplerRun, x: Tensor) -> Tensor;

    /// Walks `x` down `levels`, noisiest first, and returns the sample at the last of them.
    ///
    /// `x` is noise of unit variance, or a sample noised to the first level; a solver that works in another
    /// scale converts it itself. It should be f32 also when the network runs in half precision.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`; returns the same
    fn sample(
        &self,
        denoiser: &dyn Denoiser,
        x: Tensor,
        levels: &[NoiseLevel],
        noise: &mut dyn NoiseSource,
        observe: &mut dyn FnMut(SamplingStep),
    ) -> Tensor {
        self.walk(SamplerRun { denoiser, levels, kept: None, noise, observe }, x)
    }
}
