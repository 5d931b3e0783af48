//! `train`: the training loop.

use ldm_libtorch::{SwitchScope, deterministic_scope, tf32_scope};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::latent_cache::CacheLatents;
use crate::objective::consistency::ConsistencyConfig;
use crate::objective::embedding_config::EmbeddingConfig;
use crate::objective::init_from::InitFrom;
use crate::objective::lora_config::LoraConfig;
use crate::optim::{AdamWConfig, EmaConfig, LearningRate};
use crate::run::retention::KeepBest;

/// `train`: the training loop.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// The model that a new run starts from; absent for random weights. Only in config files.
    pub init_from: Option<InitFrom>,
    /// Low-rank adapters of the model of `init_from`, trained in place of its weights. Only in config files.
    pub lora: Option<LoraConfig>,
    /// A new word of the model of `init_from`, whose vectors are trained in place of its weights. Only in config files.
    pub embedding: Option<EmbeddingConfig>,
    /// Optimizer steps of the run.
    pub steps: u64,
    /// The random seed.
    pub seed: u64,
    /// The learning rate before its schedule. If absent, `base_learning_rate · ranks · batch_size · accumulate`
    /// (CompVis `main.py:686`).
    pub learning_rate: Option<f64>,
    /// The learning-rate schedule.
    pub schedule: LearningRate,
    /// AdamW. The defaults are PyTorch's, or in config files [`AdamWConfig::adversarial`] for a first stage with a
    /// discriminator.
    pub optimizer: AdamWConfig,
    /// Micro-batches per step.
    pub accumulate: u64,
    /// The maximum L2 norm of the gradients over all parameters; absent for no clipping.
    pub clip_grad: Option<f64>,
    /// The EMA of the weights; `null` for none.
    pub ema: Option<EmaConfig>,
    /// Probability of dropping the condition, for classifier-free guidance (Ho & Salimans 2022).
    pub conditioning_dropout: f64,
    /// γ of Min-SNR-γ loss weighting (Hang et al. 2023; they take 5).
    pub min_snr_gamma: Option<f64>,
    /// Tunes the model of `init_from` into a consistency model. Only in config files.
    pub consistency: Option<ConsistencyConfig>,
    /// Strength of offset noise, constant over each channel of a latent (Guttenberg 2023, about 0.1).
    pub offset_noise: f64,
    /// Trains on a class image next to each instance image (DreamBooth, Ruiz et al. 2023, eq. 3; diffusers'
    /// `with_prior_preservation`), from `data.params.class_images`. Only in config files.
    pub with_prior_preservation: bool,
    /// Weight of the loss of class images, in addition to that of instance images (diffusers' `prior_loss_weight`).
    pub prior_loss_weight: f64,
    /// Encodes images once and caches their latents in the run directory, or in a file that runs can share.
    pub cache_latents: CacheLatents,
    /// f32, or bf16 or f16 by autocast over f32 weights.
    pub dtype: Dtype,
    /// On CUDA f32 products and convolutions have 10 bits of mantissa (TF32), which is faster. Metrics do without.
    pub tf32: bool,
    /// On CUDA only algorithms whose result does not depend on timing, so that a resumed run has the same bits, as on the CPU
    /// always; an operation without one fails with its name.
    pub deterministic: bool,
    /// The number of steps in a row with NaN or Inf gradients at which the run fails; fewer are skipped and counted.
    pub max_skipped: u64,
    /// Steps between lines of `metrics.jsonl`.
    pub log_every: u64,
    /// Steps between checkpoints; the last step always writes one.
    pub checkpoint_every: u64,
    /// The number of newest checkpoints to keep.
    pub keep: usize,
    /// Checkpoints at multiples of this step are never removed; 0 for none.
    pub keep_every: u64,
    /// Also keeps the best checkpoints by a validation metric; every validation then writes a checkpoint.
    pub keep_best: Option<KeepBest>,
    /// Steps between validations; 0 validates only at the end.
    pub validate_every: u64,
    /// Images per validation; 0 for all.
    pub validate_images: usize,
    /// The preview images.
    pub samples: SampleConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            init_from: None,
            lora: None,
            embedding: None,
            steps: 100_000,
            seed: 23, // as in CompVis `main.py`
            learning_rate: None,
            schedule: LearningRate::default(),
            optimizer: AdamWConfig::default(),
            accumulate: 1,
            clip_grad: None,
            ema: Some(EmaConfig::default()),
            conditioning_dropout: 0.,
            min_snr_gamma: None,
            consistency: None,
            offset_noise: 0.,
            with_prior_preservation: false,
            prior_loss_weight: 1.,
            cache_latents: CacheLatents::No,
            dtype: Dtype::F32,
            tf32: false,
            deterministic: false,
            max_skipped: 20, // the f16 loss scale can halve 16 times before it is 1
            log_every: 50,
            checkpoint_every: 1000,
            keep: 3,
            keep_every: 0,
            keep_best: None,
            validate_every: 0,
            validate_images: 512,
            samples: SampleConfig::default(),
        }
    }
}

impl TrainConfig {
    /// The learning rate before its schedule: `learning_rate`, or `base` times the images of a step, with `batch`
    /// images per micro-batch on all ranks. CompVis `main.py:686`.
    pub(crate) fn base_rate(&self, base: Option<f64>, batch: usize) -> Option<f64> {
        let images = batch as f64 * self.accumulate as f64;
        self.learning_rate.or_else(|| base.map(|base| base * images))
    }

    /// The switches of CUDA's arithmetic for a run on `device`; dropping them restores those of the process. A switch that is
    /// false here stays as it is.
    pub(crate) fn switches(&self, device: Device) -> Vec<SwitchScope> {
        if !device.is_cuda() {
            return Vec::new();
        }
        let tf32 = self.tf32.then(|| tf32_scope(true));
        tf32.into_iter().chain(self.deterministic.then(|| deterministic_scope(true))).collect()
    }

    /// Checks the values. The message of an error begins with the key.
    pub(crate) fn check(&self, has_validation: bool) -> Result<(), String> {
        let positive: [(&str, u64); 6] = [
            ("max_skipped", self.max_skipped),
            ("steps", self.steps),
            ("accumulate", self.accumulate),
            ("log_every", self.log_every),
            ("checkpoint_every", self.checkpoint_every),
            ("keep", self.keep as u64),
        ];
        for (key, value) in positive {
            if value == 0 {
                return Err(format!("train.{key}: expected at least 1, got 0"));
            }
        }
        if self.lora.is_some() && self.embedding.is_some() {
            return Err("train.embedding: expected none with train.lora, got one".into());
        }
        if !(0. ..=1.).contains(&self.conditioning_dropout) {
            let got = self.conditioning_dropout;
            return Err(format!("train.conditioning_dropout: expected a probability, got {got}"));
        }
        if let Some(Err(error)) = self.ema.as_ref().map(EmaConfig::check) {
            return Err(format!("train.ema.{error}"));
        }
        if !(self.offset_noise.is_finite() && self.offset_noise >= 0.) {
            return Err(format!("train.offset_noise: expected at least 0, got {}", self.offset_noise));
        }
        self.check_prior_preservation()?;
        self.check_consistency()?;
        for (key, value) in [("clip_grad", self.clip_grad), ("min_snr_gamma", self.min_snr_gamma)] {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.)) {
                return Err(format!("train.{key}: expected a positive number, got {value}"));
            }
        }
        if let Err(error) = self.optimizer.check() {
            return Err(format!("train.optimizer.{error}"));
        }
        if let Err(error) = self.schedule.check(self.steps) {
            return Err(format!("train.schedule.{error}"));
        }
        self.samples.check()?;
        if let Some(best) = &self.keep_best {
            if !has_validation {
                return Err(
                    "train.keep_best: expected a held-out set, data.params.validation, got none".into()
                );
            }
            if best.count == 0 {
                return Err("train.keep_best.count: expected at least 1, got 0".into());
            }
        }
        Ok(())
    }

    fn check_consistency(&self) -> Result<(), String> {
        let Some(consistency) = &self.consistency else { return Ok(()) };
        consistency.check().map_err(|message| format!("train.consistency.{message}"))?;
        if self.init_from.is_none() {
            return Err("train.consistency: expected a model to tune in train.init_from, got none".into());
        }
        let others = [
            ("min_snr_gamma", self.min_snr_gamma.is_some()),
            ("with_prior_preservation", self.with_prior_preservation),
            ("embedding", self.embedding.is_some()),
        ];
        match others.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(format!("train.consistency: expected none with train.{key}, got one")),
            None => Ok(()),
        }
    }

    fn check_prior_preservation(&self) -> Result<(), String> {
        let weight = self.prior_loss_weight;
        if !(weight.is_finite() && weight >= 0.) {
            return Err(format!("train.prior_loss_weight: expected at least 0, got {weight}"));
        }
        if !self.with_prior_preservation {
            // The default may be written out, as in the config of a run.
            return if weight == 1. {
                Ok(())
            } else {
                Err("train.prior_loss_weight: expected with_prior_preservation: true with it, got false"
                    .into())
            };
        }
        if self.embedding.is_some() {
            return Err("train.with_prior_preservation: expected false with train.embedding, got true".into());
        }
        if self.cache_latents != CacheLatents::No {
            return Err(
                "train.cache_latents: expected false with with_prior_preservation, got another value".into(),
            );
        }
        Ok(())
    }
}

/// Precision of the forward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Single precision.
    #[default]
    F32,
    /// bf16 autocast; weights, gradients and optimizer state stay f32.
    Bf16,
    /// f16 autocast with a dynamic loss scale.
    F16,
}

impl Dtype {
    /// The dtype of autocast; f32 disables it.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::F16 => Kind::Half,
        }
    }
}

/// The preview images written while training.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Steps between grids; 0 writes one only at the end.
    pub every: u64,
    /// Images per grid; 0 writes none.
    pub count: usize,
    /// DDIM steps per sample (diffusion models).
    pub steps: usize,
    /// η of DDIM, 1 as in CompVis' logging (`ddpm.py:1251`): early in training, predictions are wrong at the highest
    /// noise levels, and only fresh noise lets later steps correct them.
    pub eta: f64,
    /// Classifier-free guidance of the samples (diffusion models trained with dropout).
    pub guidance_scale: f64,
    /// Shows next to each sample its condition, and the image that this belongs to (diffusion models).
    pub conditions: bool,
}

/// The largest `train.samples.count`.
const MAX_SAMPLES: usize = 1024;

impl SampleConfig {
    /// Checks the values alone; a model checks them against its schedule and its condition
    /// ([`Preview::check`](crate::Preview::check)). The message of an error begins with the key.
    fn check(&self) -> Result<(), String> {
        let Self { count, steps, eta, guidance_scale, .. } = *self;
        if count > MAX_SAMPLES {
            return Err(format!("train.samples.count: expected at most {MAX_SAMPLES}, got {count}"));
        }
        if steps == 0 {
            return Err("train.samples.steps: expected at least 1, got 0".into());
        }
        if !(0. ..=1.).contains(&eta) {
            return Err(format!("train.samples.eta: expected a number in [0, 1], got {eta}"));
        }
        if !guidance_scale.is_finite() {
            return Err(format!(
                "train.samples.guidance_scale: expected a finite number, got {guidance_scale}"
            ));
        }
        Ok(())
    }
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { every: 0, count: 16, steps: 50, eta: 1., guidance_scale: 1., conditions: true }
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    /// TF32, and whether algorithms are deterministic: then libtorch refuses `put_`, on the CPU too.
    fn switches() -> [bool; 2] {
        let (mut to, index) = (Tensor::zeros([3], (Kind::Float, Device::Cpu)), Tensor::from_slice(&[1_i64]));
        [ldm_libtorch::tf32(), to.f_put_(&index, &Tensor::from_slice(&[1_f32]), false).is_err()]
    }

    #[test]
    fn switches_are_those_of_the_config_on_cuda_and_for_the_run_alone() {
        let start = switches();
        assert_eq!(start, [false, false]);
        for wanted in [[false, false], [true, false], [false, true], [true, true]] {
            let [tf32, deterministic] = wanted;
            let config = TrainConfig { tf32, deterministic, ..TrainConfig::default() };
            {
                let _scopes = config.switches(Device::Cuda(0));
                assert_eq!(switches(), wanted);
            }
            assert_eq!(switches(), start);
            let _scopes = config.switches(Device::Cpu);
            assert_eq!(switches(), start, "a CPU has none of them");
        }
    }
}
