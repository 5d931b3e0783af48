//! A running average of the weights.

use ldm_core::Result;
use ldm_core::weights::Checkpoint;
use ldm_libtorch::lerp_all;
use tch::Tensor;

use crate::optimizer::copy_named;

/// An exponential moving average with the reference's warm-up. CompVis `ema.py` `LitEma`.
///
/// Updated once an optimizer step; the reference updates once a micro-batch, which differs only under gradient
/// accumulation, where it averages the same weights several times.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    updates: u64,
    names: Vec<String>,
    params: Vec<Tensor>,
    shadows: Vec<Tensor>,
}

impl Ema {
    /// Starts from the weights as they are.
    pub fn new(params: Vec<(String, Tensor)>, decay: f64) -> Self {
        let (names, params): (Vec<_>, Vec<_>) = params.into_iter().unzip();
        let shadows = params.iter().map(|tensor| tensor.detach().copy()).collect();
        Self { decay, updates: 0, names, params, shadows }
    }

    /// Moves the average by `1 − d` with `d = min(decay, (1 + n) / (10 + n))` for update `n` (from 1).
    pub fn update(&mut self) {
        self.updates += 1;
        let n = self.updates as f64;
        let decay = self.decay.min((1. + n) / (10. + n));
        lerp_all(&self.shadows, &self.params, 1. - decay);
    }

    /// Runs `body` with the averages in place of the weights, and puts the weights back, to the bit.
    pub fn swapped<T>(&self, body: impl FnOnce() -> T) -> T {
        self.swap();
        let result = body();
        self.swap();
        result
    }

    fn swap(&self) {
        for (param, shadow) in self.params.iter().zip(&self.shadows) {
            let (mut param, mut shadow) = (param.detach(), shadow.shallow_clone());
            let kept = param.copy();
            param.copy_(&shadow);
            shadow.copy_(&kept);
        }
    }

    /// The averages by the parameters' names.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let pairs = self.names.iter().zip(&self.shadows);
        pairs.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// How many updates there were.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Takes over a saved state.
    ///
    /// # Errors
    /// [`ldm_core::Error::Weights`] listing what does not fit.
    pub fn load(&mut self, checkpoint: &Checkpoint, updates: u64) -> Result<()> {
        copy_named(self.state(), checkpoint)?;
        self.updates = updates;
        Ok(())
    }
}
