//! One training step: forward, backward, gradient reduction, optimizers, loss scale, EMA.

use ldm_core::noise::PerStep;
use ldm_core::{NoiseSource, Result};
use ldm_data::Batch;
use ldm_libtorch::GradientReducer;
use tch::{Device, Kind, Tensor};

use crate::config::{Dtype, TrainConfig};
use crate::distributed::Distributed;
use crate::objective::{Loss, Objective, Phase, StepInfo, shallow};
use crate::optim::{AdamW, AdamWConfig, Ema, EmaConfig, LossScale, found_inf, grad_scale};

/// Separates the noise of [`Objective::after_step`] from that of forward passes, whose numbers are smaller.
const AFTER_STEP: u64 = 1 << 63;

/// Settings of a [`TrainStep`].
#[derive(Debug, Clone, Default)]
pub struct TrainStepConfig {
    /// The seed of all noise.
    pub seed: u64,
    /// Micro-batches per step, at least 1.
    pub accumulate: u64,
    /// Maximum L2 norm of a phase's gradients; `None` disables clipping.
    pub clip_grad: Option<f64>,
    /// The dtype of the forward pass.
    pub dtype: Dtype,
    /// Settings of the optimizers.
    pub optimizer: AdamWConfig,
    /// Settings of the EMA; `None` disables it.
    pub ema: Option<EmaConfig>,
}

impl From<&TrainConfig> for TrainStepConfig {
    fn from(train: &TrainConfig) -> Self {
        Self {
            seed: train.seed,
            accumulate: train.accumulate,
            clip_grad: train.clip_grad,
            dtype: train.dtype,
            optimizer: train.optimizer,
            ema: train.ema.clone(),
        }
    }
}

/// A phase of an objective, the optimizer of its parameters, and the reducer that averages their gradients over ranks.
#[derive(Debug)]
pub struct PhaseOptimizer {
    /// The phase.
    pub phase: Phase,
    /// Its optimizer.
    pub optimizer: AdamW,
    reducer: Box<dyn GradientReducer>,
}

/// The results of a step, as tensors on the device.
#[derive(Debug)]
pub struct StepReport {
    /// Scalars to log by name, in order of computation: the loss parts of each micro-batch and phase, `grad_norm`,
    /// `loss_scale`.
    pub scalars: Vec<(String, Tensor)>,
    /// An f32 scalar, above 0 where a gradient of a phase was NaN or Inf and that phase was skipped.
    pub found_inf: Tensor,
}

/// The training step of an objective, from micro-batches to updated weights.
///
/// The trainer, `ldm bench` and the parity tests with CompVis use it. [`step`](Self::step) is a whole step;
/// [`forward_backward`](Self::forward_backward) and [`optimizer_step`](Self::optimizer_step) are its parts.
///
/// The noise of step *n* depends only on `(seed, n)` and the rank.
pub struct TrainStep {
    objective: Box<dyn Objective>,
    optimizers: Vec<PhaseOptimizer>,
    scaler: Option<LossScale>,
    ema: Option<Ema>,
    distributed: Distributed,
    config: TrainStepConfig,
    device: Device,
    global_step: u64,
    micro_batch: u64,
    /// True from the first batch of a step to its end.
    is_within_step: bool,
}

impl std::fmt::Debug for TrainStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainStep")
            .field("config", &self.config)
            .field("global_step", &self.global_step)
            .finish_non_exhaustive()
    }
}

impl TrainStep {
    /// Creates the optimizers, the EMA if configured, and the loss scale for f16. `device` is that of the objective.
    ///
    /// # Errors
    /// [`ldm_core::Error::Ranks`] when another rank has ended.
    pub fn new(
        objective: Box<dyn Objective>,
        config: TrainStepConfig,
        device: Device,
        distributed: Distributed,
    ) -> Result<Self> {
        let optimizers = objective
            .phases()
            .into_iter()
            .map(|phase| {
                let optimizer = AdamW::new(shallow(&phase.trainable), config.optimizer);
                let params: Vec<Tensor> =
                    phase.trainable.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
                let reducer = distributed.reducer(&params)?;
                Ok(PhaseOptimizer { phase, optimizer, reducer })
            })
            .collect::<Result<_>>()?;
        let ema = config.ema.as_ref().map(|ema| Ema::new(objective.ema_parameters(), ema));
        let scaler = (config.dtype == Dtype::F16).then(|| LossScale::new(device));
        let config = TrainStepConfig { accumulate: config.accumulate.max(1), ..config };
        Ok(Self {
            objective,
            optimizers,
            scaler,
            ema,
            distributed,
            config,
            device,
            global_step: 0,
            micro_batch: 0,
            is_within_step: false,
        })
    }

    /// Takes one optimizer step of `config.accumulate` micro-batches, with learning rate `lr`, which each phase
    /// multiplies by its [`Phase::lr_scale`].
    ///
    /// In the last micro-batch, a phase's optimizer steps before the forward pass of the next phase, as in Lightning.
    ///
    /// # Errors
    /// The errors of `next_batch` and of [`Objective::loss`]; [`ldm_core::Error::Ranks`] when another rank has ended.
    pub fn step(&mut self, lr: f64, next_batch: &mut dyn FnMut() -> Result<Batch>) -> Result<StepReport> {
        let (mut scalars, mut overflows) = (Vec::new(), Vec::new());
        for micro in 0..self.config.accumulate {
            self.micro_batch = micro;
            let batch = next_batch()?;
            self.is_within_step = true;
            for phase in 0..self.optimizers.len() {
                let mut noise = self.noise(phase);
                let loss = self.forward_backward(phase, &batch, &mut noise)?;
                scalars.extend(loss.parts.into_iter().map(|(name, value)| (name.to_owned(), value)));
                if self.is_last_micro_batch() {
                    let (norm, overflow) = self.optimizer_step(phase, lr)?;
                    scalars.push((self.norm_name(phase), norm));
                    overflows.push(overflow);
                }
            }
        }
        self.micro_batch = 0;
        let found_inf = Tensor::stack(&overflows, 0).sum(Kind::Float);
        if let Some(scaler) = &mut self.scaler {
            scalars.push(("loss_scale".into(), scaler.scale().copy()));
            scaler.update(&found_inf);
        }
        self.objective.after_step(&mut PerStep::new(self.config.seed, 0, AFTER_STEP | self.global_step));
        if self.global_step == 0 {
            // Layers that initialize from their first batch (ActNorm) saw different ones on each rank.
            self.sync_weights()?;
        }
        if let Some(ema) = &mut self.ema {
            ema.update();
        }
        self.global_step += 1;
        self.is_within_step = false;
        Ok(StepReport { scalars, found_inf })
    }

    /// Runs the forward and backward pass of one phase on one micro-batch. Gradients accumulate over the micro-batches
    /// of a step.
    ///
    /// # Errors
    /// The errors of [`Objective::loss`].
    pub fn forward_backward(
        &mut self,
        phase: usize,
        batch: &Batch,
        noise: &mut dyn NoiseSource,
    ) -> Result<Loss> {
        for (index, PhaseOptimizer { phase: other, reducer, .. }) in self.optimizers.iter().enumerate() {
            for (_, tensor) in &other.trainable {
                let _ = tensor.set_requires_grad(index == phase);
            }
            if index == phase && self.micro_batch == 0 {
                reducer.clear();
            }
        }
        let info = StepInfo { phase, global_step: self.global_step };
        let loss = {
            let _autocast = ldm_libtorch::autocast(self.device, self.config.dtype.kind());
            self.objective.loss(info, batch, noise)?
        };
        if self.is_last_micro_batch() {
            self.optimizers[phase].reducer.arm();
        }
        let mean = &loss.total / self.config.accumulate as f64;
        self.scaler.as_ref().map_or(mean.shallow_clone(), |scaler| mean * scaler.scale()).backward();
        self.objective.after_backward(phase);
        Ok(loss)
    }

    /// Averages one phase's gradients over the ranks, clips them, and updates its parameters unless a gradient is NaN
    /// or Inf. Returns the L2 norm of the gradients before clipping, and an f32 scalar, 1 if the update was skipped.
    ///
    /// # Errors
    /// [`ldm_core::Error::Ranks`] when another rank has ended.
    pub fn optimizer_step(&mut self, phase: usize, lr: f64) -> Result<(Tensor, Tensor)> {
        let PhaseOptimizer { phase, optimizer, reducer } = &mut self.optimizers[phase];
        reducer.finish()?;
        let loss_scale = self.scaler.as_ref().map(LossScale::scale);
        let norm = optimizer.grad_norm();
        // The scale is a power of two: the norm is that of unscaled gradients to the bit.
        let norm = loss_scale.map_or_else(|| norm.shallow_clone(), |scale| &norm / scale);
        let overflow = found_inf(&norm);
        let divisor = grad_scale(&norm, self.config.clip_grad, loss_scale);
        optimizer.step(lr * phase.lr_scale, divisor.as_ref(), Some(&overflow));
        Ok((norm, overflow))
    }

    /// The noise of the next forward pass of a phase: [`PerStep::shared`] with the number of the pass in the run.
    fn noise(&self, phase: usize) -> PerStep {
        let (ranks, phases) = (&self.distributed, self.optimizers.len() as u64);
        let pass = (self.global_step * self.config.accumulate + self.micro_batch) * phases + phase as u64;
        PerStep::shared(self.config.seed, ranks.rank(), ranks.world_size(), pass)
    }

    fn is_last_micro_batch(&self) -> bool {
        self.micro_batch + 1 == self.config.accumulate
    }

    fn norm_name(&self, phase: usize) -> String {
        if self.optimizers.len() > 1 {
            format!("grad_norm/{}", self.optimizers[phase].phase.name)
        } else {
            "grad_norm".into()
        }
    }

    /// Copies the weights of rank 0 to all ranks.
    ///
    /// # Errors
    /// [`ldm_core::Error::Ranks`] when another rank has ended.
    pub fn sync_weights(&self) -> Result<()> {
        let weights: Vec<Tensor> = self.objective.weights().into_iter().map(|(_, tensor)| tensor).collect();
        self.distributed.broadcast_weights(&weights)
    }

    /// Runs `body` without gradients and, if there is an EMA, with it in place of the weights.
    pub fn with_ema<T>(&self, body: impl FnOnce(&dyn Objective) -> T) -> T {
        let body = || body(&*self.objective);
        match &self.ema {
            Some(ema) => tch::no_grad(|| ema.swapped(body)),
            None => tch::no_grad(body),
        }
    }

    /// The objective.
    pub fn objective(&self) -> &dyn Objective {
        &*self.objective
    }

    /// Mutable access to the objective, to prepare or load it.
    pub fn objective_mut(&mut self) -> &mut dyn Objective {
        &mut *self.objective
    }

    /// The phases and their optimizers.
    pub fn optimizers(&self) -> &[PhaseOptimizer] {
        &self.optimizers
    }

    /// Mutable access to the phases and their optimizers, to load their states.
    pub fn optimizers_mut(&mut self) -> &mut [PhaseOptimizer] {
        &mut self.optimizers
    }

    /// The EMA, if configured.
    pub fn ema(&self) -> Option<&Ema> {
        self.ema.as_ref()
    }

    /// Mutable access to the EMA, to load its state.
    pub fn ema_mut(&mut self) -> Option<&mut Ema> {
        self.ema.as_mut()
    }

    /// The loss scale, for f16 only.
    pub fn scaler(&self) -> Option<&LossScale> {
        self.scaler.as_ref()
    }

    /// The process group.
    pub fn distributed(&self) -> &Distributed {
        &self.distributed
    }

    /// True if a step has begun and failed, so that weights may have changed.
    pub(crate) fn is_within_step(&self) -> bool {
        self.is_within_step
    }

    /// The number of optimizer steps taken.
    pub fn global_step(&self) -> u64 {
        self.global_step
    }

    /// Sets the number of optimizer steps taken, as after a resume.
    pub fn set_global_step(&mut self, global_step: u64) {
        self.global_step = global_step;
    }

    /// The number of trained scalar parameters.
    pub fn parameters(&self) -> usize {
        let trainable = self.optimizers.iter().flat_map(|each| &each.phase.trainable);
        trainable.map(|(_, tensor)| tensor.numel()).sum()
    }
}
