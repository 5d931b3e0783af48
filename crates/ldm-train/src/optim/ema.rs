//! Exponential moving average (EMA) of the weights.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use ldm_libtorch::lerp_all;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::optim::copy_named;

/// Settings of the EMA. CompVis `ema.py`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaConfig {
    /// The decay after warm-up. This EMA is validated, sampled from and exported.
    pub decay: f64,
    /// Decays of further EMAs, which are stored in the checkpoints (`ema-0.999.safetensors`).
    pub also: Vec<f64>,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: 0.9999, also: Vec::new() }
    }
}

impl EmaConfig {
    /// Checks that decays are in range and differ.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the key below `train.ema` and the value.
    pub fn check(&self) -> Result<()> {
        let wrong = |key: &str, decay: f64| {
            Err(Error::invalid(format!("{key}: expected at least 0 and below 1, got {decay}")))
        };
        if !(0. ..1.).contains(&self.decay) {
            return wrong("decay", self.decay);
        }
        for (index, decay) in self.also.iter().enumerate() {
            if !(0. ..1.).contains(decay) {
                return wrong("also", *decay);
            }
            if *decay == self.decay || self.also[..index].contains(decay) {
                return Err(Error::invalid(format!("also: expected different decays, got {decay} twice")));
            }
        }
        Ok(())
    }

    /// The files of [`Ema::write`].
    pub(crate) fn files(&self) -> Vec<String> {
        let decays = [self.decay].into_iter().chain(self.also.iter().copied());
        decays.enumerate().map(|(index, decay)| file_name(index, decay)).collect()
    }
}

/// Exponential moving averages with CompVis' warm-up. CompVis `ema.py` `LitEma`.
///
/// Updated once per optimizer step. CompVis updates once per micro-batch, which differs only under gradient
/// accumulation, where it averages the same weights several times.
#[derive(Debug)]
pub struct Ema {
    updates: u64,
    names: Vec<String>,
    params: Vec<Tensor>,
    /// The first replaces the weights in [`Ema::swapped`].
    averages: Vec<EmaShadows>,
}

#[derive(Debug)]
struct EmaShadows {
    decay: f64,
    shadows: Vec<Tensor>,
}

impl Ema {
    /// EMAs for every decay in `config`, starting from the current weights.
    pub fn new(params: Vec<(String, Tensor)>, config: &EmaConfig) -> Self {
        let (names, params): (Vec<_>, Vec<_>) = params.into_iter().unzip();
        let average = |decay: &f64| EmaShadows {
            decay: *decay,
            shadows: params.iter().map(|tensor| tensor.detach().copy()).collect(),
        };
        let averages = [config.decay].iter().chain(&config.also).map(average).collect();
        Self { updates: 0, names, params, averages }
    }

    /// Updates each EMA with weight `1 − d`, `d = min(decay, (1 + n) / (10 + n))` for update `n` (from 1).
    pub fn update(&mut self) {
        self.updates += 1;
        let n = self.updates as f64;
        for EmaShadows { decay, shadows } in &self.averages {
            lerp_all(shadows, &self.params, 1. - decay.min((1. + n) / (10. + n)));
        }
    }

    /// Runs `body` with the first EMA in place of the weights, and restores the weights exactly.
    pub fn swapped<T>(&self, body: impl FnOnce() -> T) -> T {
        self.swap();
        let result = body();
        self.swap();
        result
    }

    fn swap(&self) {
        for (param, shadow) in self.params.iter().zip(&self.averages[0].shadows) {
            let (mut param, mut shadow) = (param.detach(), shadow.shallow_clone());
            let weight = param.copy();
            param.copy_(&shadow);
            shadow.copy_(&weight);
        }
    }

    /// The first EMA by the parameters' names.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.named(&self.averages[0])
    }

    fn named(&self, average: &EmaShadows) -> Vec<(String, Tensor)> {
        let pairs = self.names.iter().zip(&average.shadows);
        pairs.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    }

    /// The number of updates.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Writes every EMA into `folder`: the first as `ema.safetensors`, the others by their decays.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written.
    pub fn write(&self, folder: &Path, metadata: &BTreeMap<String, String>) -> Result<()> {
        self.averages.iter().enumerate().try_for_each(|(index, average)| {
            ldm_checkpoint::save(folder.join(file_name(index, average.decay)), &self.named(average), metadata)
        })
    }

    /// Loads the files of [`Ema::write`] in `folder`, written after `updates` updates.
    ///
    /// # Errors
    /// [`Error::Io`] when a file is missing; [`Error::Weights`] listing every mismatch.
    pub fn read(&mut self, folder: &Path, updates: u64) -> Result<()> {
        for (index, average) in self.averages.iter().enumerate() {
            let checkpoint = Checkpoint::open(folder.join(file_name(index, average.decay)))?;
            copy_named(self.named(average), &checkpoint)?;
        }
        self.updates = updates;
        Ok(())
    }
}

fn file_name(index: usize, decay: f64) -> String {
    if index == 0 { "ema.safetensors".into() } else { format!("ema-{decay}.safetensors") }
}
