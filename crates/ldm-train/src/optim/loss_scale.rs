//! Dynamic loss scaling for f16.

use ldm_checkpoint::Checkpoint;
use ldm_core::Result;
use tch::{Device, Kind, Tensor};

use crate::optim::copy_named;

const INITIAL: f64 = 65_536.;
const GROWTH: f64 = 2.;
const BACKOFF: f64 = 0.5;
/// Steps without overflow after which the scale doubles.
const GROWTH_INTERVAL: i64 = 2000;

/// Dynamic loss scaling (Micikevicius et al. 2018, §3.2), with the rule and the constants of `torch.amp.GradScaler`: a
/// step whose gradients overflow is skipped and halves the scale; 2000 steps in a row without overflow double it.
///
/// Everything stays on the device: no step synchronizes with the host.
#[derive(Debug)]
pub struct LossScale {
    /// f32 scalar.
    scale: Tensor,
    /// i32 scalar: steps since the scale last changed.
    growth: Tensor,
}

impl LossScale {
    /// The initial scale, 65 536.
    pub fn new(device: Device) -> Self {
        Self {
            scale: Tensor::full([], INITIAL, (Kind::Float, device)),
            growth: Tensor::zeros([], (Kind::Int, device)),
        }
    }

    /// The factor of the loss, an f32 scalar; gradients are divided by it ([`grad_scale`](crate::grad_scale)).
    pub fn scale(&self) -> &Tensor {
        &self.scale
    }

    /// Updates the scale after a step; `found_inf` is an f32 scalar, the number of optimizers whose gradients
    /// overflowed.
    pub fn update(&mut self, found_inf: &Tensor) {
        let _ = tch::no_grad(|| {
            self.scale.internal_amp_update_scale_(&self.growth, found_inf, GROWTH, BACKOFF, GROWTH_INTERVAL)
        });
    }

    /// The state as named tensors: `loss_scale.scale`, `loss_scale.growth`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        vec![
            ("loss_scale.scale".into(), self.scale.shallow_clone()),
            ("loss_scale.growth".into(), self.growth.shallow_clone()),
        ]
    }

    /// Loads a saved state.
    ///
    /// # Errors
    /// [`ldm_core::Error::Weights`] listing every mismatch.
    pub fn load(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        copy_named(self.state(), checkpoint)
    }
}
