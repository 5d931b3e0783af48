//! Samplers: solvers of the reverse process.

use std::fmt;

use tch::Tensor;

use crate::{Denoised, NoiseLevel, SamplerRun};

/// A solver. Its state is its local variables: a sampler is plain data and can be used again.
pub trait Sampler: fmt::Debug {
    /// Takes `x` through the noise levels of `run`, noisiest first, and returns the sample at the last of them.
    ///
    /// `x` is noise at the scale of [`SamplerPlan::initial`](crate::SamplerPlan::initial), or a sample noised to the first
    /// level. It should be f32 even where the network runs in half precision. Noise is drawn only by a step that uses it.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`; returns the same
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor;
}

/// The state of a sampling step that an observer sees: the sample it starts from and its prediction.
#[derive(Debug)]
pub struct SamplingStep<'a> {
    /// Number of the step, from 0.
    pub index: usize,
    /// The noise level of `x`.
    pub level: NoiseLevel,
    /// The noisy sample.
    pub x: &'a Tensor,
    /// The prediction.
    pub denoised: &'a Denoised,
}
