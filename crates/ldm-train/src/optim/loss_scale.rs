//! A loss made larger, so that small gradients do not vanish in f16.

use ldm_checkpoint::Checkpoint;
use ldm_core::Result;
use tch::{Device, Kind, Tensor};

use crate::optim::copy_named;

const INITIAL: f64 = 65_536.;
const GROWTH: f64 = 2.;
const BACKOFF: f64 = 0.5;
/// Steps without an overflow after which the scale is tried twice as large.
const GROWTH_INTERVAL: i64 = 2000;

/// Dynamic loss scaling (Micikevicius et al. 2018, §3.2), by the rule and the numbers of `torch.amp.GradScaler`: a step
/// whose gradients overflow is left out and halves the scale; 2000 steps in a row that do not overflow double it.
///
/// Everything stays on the device: no step waits for the host to learn whether it was taken.
#[derive(Debug)]
pub struct LossScale {
    /// f32 scalar.
    scale: Tensor,
    /// i32 scalar: steps since the scale last changed.
    growth: Tensor,
}

impl LossScale {
    /// The scale a run starts with, 65 536.
    pub fn new(device: Device) -> Self {
        Self {
            scale: Tensor::full([], INITIAL, (Kind::Float, device)),
            growth: Tensor::zeros([], (Kind::Int, device)),
        }
    }

    /// What the loss is multiplied by before its backward pass, and gradients are divided by: an f32 scalar.
    pub fn scale(&self) -> &Tensor {
        &self.scale
    }

    /// Once a step, when it is known whether gradients overflowed (`found_inf`, an f32 scalar, above 0 where they
    /// did): of several optimizers, the sum of theirs.
    pub fn update(&mut self, found_inf: &Tensor) {
        let _ = tch::no_grad(|| {
            self.scale.internal_amp_update_scale_(&self.growth, found_inf, GROWTH, BACKOFF, GROWTH_INTERVAL)
        });
    }

    /// What a resumed run needs: `loss_scale.scale`, `loss_scale.growth`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        vec![
            ("loss_scale.scale".into(), self.scale.shallow_clone()),
            ("loss_scale.growth".into(), self.growth.shallow_clone()),
        ]
    }

    /// Takes over a saved state.
    ///
    /// # Errors
    /// [`ldm_core::Error::Weights`] listing what does not fit.
    pub fn load(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        copy_named(self.state(), checkpoint)
    }
}
