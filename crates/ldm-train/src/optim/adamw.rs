//! AdamW with a state that can be saved.

use std::collections::BTreeMap;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use ldm_libtorch::{AdamWLists, AdamWStep, forget_gradients, fused_adamw, total_norm};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Settings of AdamW; the defaults are PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay rates of the first and second moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }
    }
}

impl AdamWConfig {
    /// Adam with CompVis' settings for a first stage and its discriminator (`autoencoder.py:386`).
    pub fn adversarial() -> Self {
        Self { betas: [0.5, 0.9], weight_decay: 0., ..Self::default() }
    }

    /// Checks the values, within the ranges of PyTorch's AdamW. The message of an error begins with the key.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        if let Some(beta) = self.betas.iter().find(|beta| !(0. ..1.).contains(*beta)) {
            return Err(format!("betas: expected numbers of at least 0 and below 1, got {beta}"));
        }
        for (key, value) in [("eps", self.eps), ("weight_decay", self.weight_decay)] {
            if !(value.is_finite() && value >= 0.) {
                return Err(format!("{key}: expected at least 0, got {value}"));
            }
        }
        Ok(())
    }
}

/// AdamW (Loshchilov & Hutter 2019) over named parameters, with its state as named tensors; that of tch cannot be
/// saved.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    names: Vec<String>,
    params: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    /// One f32 scalar per parameter, as the fused kernel requires; all are equal.
    steps: Vec<Tensor>,
}

impl AdamW {
    /// An optimizer of `params` with zero-initialized state.
    pub fn new(params: Vec<(String, Tensor)>, config: AdamWConfig) -> Self {
        let (names, params): (Vec<_>, Vec<_>) = params.into_iter().unzip();
        let zeros = |tensor: &Tensor| tensor.detach().zeros_like();
        Self {
            config,
            exp_avgs: params.iter().map(zeros).collect(),
            exp_avg_sqs: params.iter().map(zeros).collect(),
            steps: params.iter().map(|tensor| Tensor::zeros([], (Kind::Float, tensor.device()))).collect(),
            names,
            params,
        }
    }

    /// Clears all gradients; a parameter that gets none until the next step is then unchanged by it.
    pub fn zero_grad(&mut self) {
        forget_gradients(&self.params);
    }

    /// Computes the L2 norm of all gradients, an f32 scalar on their device.
    pub fn grad_norm(&self) -> Tensor {
        let grads: Vec<Tensor> = self.params.iter().map(Tensor::grad).filter(Tensor::defined).collect();
        total_norm(&grads)
    }

    /// Takes a step with learning rate `lr`. Gradients are divided by `grad_scale` ([`grad_scale`]), if given, in place.
    /// Parameters without a gradient are unchanged. If `found_inf` ([`found_inf`]) is 1, parameters and state are
    /// unchanged and the step is not counted. Never synchronizes with the host.
    pub fn step(&mut self, lr: f64, grad_scale: Option<&Tensor>, found_inf: Option<&Tensor>) {
        let AdamWConfig { betas: [beta1, beta2], eps, weight_decay } = self.config;
        let with_grad: Vec<(usize, Tensor)> = self
            .params
            .iter()
            .enumerate()
            .map(|(index, param)| (index, param.grad()))
            .filter(|(_, grad)| grad.defined())
            .collect();
        let pick = |list: &[Tensor]| -> Vec<Tensor> {
            with_grad.iter().map(|(index, _)| list[*index].shallow_clone()).collect()
        };
        let grads: Vec<Tensor> = with_grad.iter().map(|(_, grad)| grad.shallow_clone()).collect();
        let lists = AdamWLists {
            params: &pick(&self.params),
            grads: &grads,
            exp_avgs: &pick(&self.exp_avgs),
            exp_avg_sqs: &pick(&self.exp_avg_sqs),
            steps: &pick(&self.steps),
        };
        fused_adamw(lists, AdamWStep { lr, beta1, beta2, weight_decay, eps }, grad_scale, found_inf);
    }

    /// The state as named tensors: `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let lists = [("exp_avg", &self.exp_avgs), ("exp_avg_sq", &self.exp_avg_sqs), ("step", &self.steps)];
        let named = |(kind, list): (&str, &Vec<Tensor>)| -> Vec<(String, Tensor)> {
            let pairs = self.names.iter().zip(list);
            pairs.map(|(name, tensor)| (format!("{kind}.{name}"), tensor.shallow_clone())).collect()
        };
        lists.into_iter().flat_map(named).collect()
    }

    /// Loads a saved state; all names and shapes must match.
    ///
    /// # Errors
    /// [`Error::Weights`] listing every mismatch.
    pub fn load(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        copy_named(self.state(), checkpoint)
    }
}

/// Detects NaN or Inf in gradients by their norm ([`AdamW::grad_norm`]). Returns an f32 scalar on its device, 1 or 0.
pub fn found_inf(norm: &Tensor) -> Tensor {
    norm.isfinite().logical_not().to_kind(Kind::Float)
}

/// The divisor that removes the factor `loss_scale` of the loss from the gradients, and scales them down to the norm
/// `clip`, as `torch.nn.utils.clip_grad_norm_` does: `loss_scale · max((norm + 1e-6) / clip, 1)`, an f32 scalar on the
/// device of `norm`, which is that without the factor. `None` if there is neither.
pub fn grad_scale(norm: &Tensor, clip: Option<f64>, loss_scale: Option<&Tensor>) -> Option<Tensor> {
    let divisor = clip.map(|clip| ((norm + 1e-6) / clip).clamp_min(1.));
    match (divisor, loss_scale) {
        (Some(divisor), Some(loss_scale)) => Some(divisor * loss_scale),
        (divisor, loss_scale) => divisor.or_else(|| loss_scale.map(Tensor::shallow_clone)),
    }
}

/// Copies a file's tensors into `targets`, all of them or none.
pub(crate) fn copy_named(targets: Vec<(String, Tensor)>, checkpoint: &Checkpoint) -> Result<()> {
    let mut mismatch = ldm_core::Mismatch::default();
    let targets: BTreeMap<String, Tensor> = targets.into_iter().collect();
    for (name, target) in &targets {
        match checkpoint.info(name) {
            None => mismatch.missing.push(name.clone()),
            Some(info) if info.shape != target.size() => {
                mismatch.misshaped.push((name.clone(), target.size(), info.shape.clone()));
            }
            Some(_) => {}
        }
    }
    mismatch
        .unexpected
        .extend(checkpoint.names().filter(|name| !targets.contains_key(*name)).map(str::to_owned));
    if !mismatch.is_empty() {
        return Err(Error::Weights { path: checkpoint.path().to_path_buf(), mismatch });
    }
    for (name, mut target) in targets {
        let value = checkpoint.tensor(&name)?;
        tch::no_grad(|| target.copy_(&value));
    }
    Ok(())
}
