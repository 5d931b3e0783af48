//! One phase of one step.

use ldm_core::Result;
use ldm_core::noise::PerStep;
use ldm_data::Batch;
use tch::Tensor;

use super::Trainer;
use crate::objective::StepInfo;
use crate::optim::found_inf;
use crate::run::meter::Meter;

impl Trainer {
    /// Forward and backward of one micro-batch for one phase.
    pub(super) fn backward(
        &mut self,
        phase: usize,
        batch: &Batch,
        micro: u64,
        meter: &mut Meter,
    ) -> Result<()> {
        for (index, (other, optimizer, _)) in self.phases.iter_mut().enumerate() {
            for (_, tensor) in &other.trainable {
                let _ = tensor.set_requires_grad(index == phase);
            }
            if index == phase && micro == 0 {
                optimizer.zero_grad();
            }
        }
        let step = self.state.step;
        let pass = (step * self.config.train.accumulate + micro) * self.phases.len() as u64 + phase as u64;
        let mut noise =
            PerStep::shared(self.config.train.seed, self.ranks.rank(), self.ranks.world_size(), pass);
        let loss = {
            let _autocast = ldm_libtorch::autocast(self.device, self.config.train.dtype.kind());
            self.objective.loss(StepInfo { phase, step }, batch, &mut noise)?
        };
        if micro + 1 == self.config.train.accumulate {
            self.phases[phase].2.arm();
        }
        let total = loss.total / self.config.train.accumulate as f64;
        self.loss_scale.as_ref().map_or(total.shallow_clone(), |scale| total * scale.scale()).backward();
        self.objective.after_backward(phase);
        for (name, value) in &loss.parts {
            meter.add(name, value);
        }
        Ok(())
    }

    /// Clips one phase's gradients, the mean over all ranks, and moves its parameters, where no gradient overflowed; 1
    /// where one did, which nobody waits to learn.
    pub(super) fn take(&mut self, phase: usize, lr: f64, meter: &mut Meter) -> Result<Tensor> {
        let several = self.phases.len() > 1;
        let (phase, optimizer, reducer) = &mut self.phases[phase];
        reducer.finish()?;
        if let Some(scale) = &self.loss_scale {
            optimizer.unscale(scale.scale());
        }
        let norm = optimizer.clip(self.config.train.clip_grad);
        let overflow = found_inf(&norm);
        meter.add(&if several { format!("grad_norm/{}", phase.name) } else { "grad_norm".into() }, &norm);
        optimizer.step(lr * phase.rate, Some(&overflow));
        Ok(overflow)
    }
}
