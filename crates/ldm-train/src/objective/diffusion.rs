//! Diffusion training: denoising the latents of a frozen first stage.

use ldm_checkpoint::Checkpoint;
use ldm_conditioning::{Conditioner, PromptDropout, Tokenizer};
use ldm_core::noise::PerStep;
use ldm_core::{Error, NoiseSource, Prompt, Result};
use ldm_data::{Batch, Dataset};
use ldm_pipelines::{
    ConditioningKind, LatentDiffusion, LatentDiffusionConfig, ModelConfig, ModelSource, SCHEDULE_BUFFERS,
    find_tokenizer,
};
use tch::{Device, Tensor};

use crate::config::TrainConfig;
use crate::latents::LatentStatistics;
use crate::latents::{encoded, evenly_spaced_timesteps, input_images, latent_moments, latents};
use crate::objective::consistency::{Consistency, ConsistencyConfig};
use crate::objective::init_from::InitFrom;
use crate::objective::losses::DiffusionLoss;
use crate::objective::prompt_for::{check_dropout, conditions_on_image, prompt_for};
use crate::objective::{
    LatentEncoder, Loss, NamedTensors, Objective, Phase, Preview, StepInfo, Validate, variables,
    with_gradients,
};

const UNET: &str = "model.diffusion_model.";
const CONDITIONER: &str = "cond_stage_model.";
const LOGVAR: &str = "logvar";

/// The settings of `train` that apply only to diffusion models.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiffusionTraining {
    /// See [`TrainConfig::conditioning_dropout`].
    pub conditioning_dropout: f64,
    /// See [`TrainConfig::min_snr_gamma`].
    pub min_snr_gamma: Option<f64>,
    /// See [`TrainConfig::offset_noise`].
    pub offset_noise: f64,
    /// The weight of the class images that alternate with instance images in batches
    /// ([`PriorPreservation`](ldm_data::PriorPreservation)); see [`TrainConfig::prior_loss_weight`].
    pub prior_loss_weight: Option<f64>,
    /// See [`TrainConfig::consistency`], and the steps of the run.
    pub consistency: Option<(ConsistencyConfig, u64)>,
}

impl From<&TrainConfig> for DiffusionTraining {
    fn from(config: &TrainConfig) -> Self {
        Self {
            conditioning_dropout: config.conditioning_dropout,
            min_snr_gamma: config.min_snr_gamma,
            offset_noise: config.offset_noise,
            prior_loss_weight: config.with_prior_preservation.then_some(config.prior_loss_weight),
            consistency: config.consistency.map(|consistency| (consistency, config.steps)),
        }
    }
}

/// L_simple (Ho et al. 2020, eq. 14) on latents, and the variational bound. CompVis `ddpm.py:1014` `p_losses`.
#[derive(Debug)]
pub struct DiffusionObjective {
    model: LatentDiffusion,
    /// Drops conditions at random, for classifier-free guidance.
    pub(super) dropout: PromptDropout,
    offset_noise: f64,
    prior_loss_weight: Option<f64>,
    /// Names of classes and of classes of boxes, for previews.
    names: [Vec<String>; 2],
    loss: DiffusionLoss,
    /// In place of `loss` in training.
    consistency: Option<Consistency>,
    /// The standard deviation of the first stage's latents, from its checkpoint or from that of `init_from`.
    overall_std: Option<f64>,
}

impl DiffusionObjective {
    /// A diffusion model with random weights; `first_stage` is the checkpoint of its frozen first stage.
    ///
    /// # Errors
    /// As [`LatentDiffusion::new`] and [`LatentDiffusion::load_first_stage`]; [`ldm_core::Error::Invalid`] when
    /// `training` is invalid, or drops a condition that the model requires.
    pub fn new(
        config: &LatentDiffusionConfig,
        first_stage: Option<Checkpoint>,
        training: DiffusionTraining,
        device: Device,
    ) -> Result<Self> {
        let tokenizer = find_tokenizer(&config.cond_stage_config, None, None)?;
        let objective = Self::with_tokenizer(config, first_stage, tokenizer, training, device)?;
        if matches!(ConditioningKind::of(config), ConditioningKind::Text | ConditioningKind::TextInpainting) {
            // Reports a missing tokenizer now, not at the first batch.
            objective.model.conditioner.condition(&Prompt::text([""]), false)?;
        }
        Ok(objective)
    }

    /// [`DiffusionObjective::new`] with a tokenizer; a text-conditional model without one accepts only tokens.
    ///
    /// # Errors
    /// As [`DiffusionObjective::new`].
    pub fn with_tokenizer(
        config: &LatentDiffusionConfig,
        first_stage: Option<Checkpoint>,
        tokenizer: Option<Tokenizer>,
        training: DiffusionTraining,
        device: Device,
    ) -> Result<Self> {
        let mut model = LatentDiffusion::new(config, tokenizer, device)?;
        let mut overall_std = None;
        if let Some(checkpoint) = first_stage {
            let found = LatentStatistics::of(&checkpoint, config.channels)?;
            overall_std = found.map(|statistics| statistics.overall_std);
            model.load_first_stage(checkpoint)?;
        }
        for (_, tensor) in variables(model.vs(), &["first_stage_model."]) {
            let _ = tensor.set_requires_grad(false);
        }
        if !config.cond_stage_trainable {
            for (_, tensor) in variables(model.vs(), &[CONDITIONER]) {
                let _ = tensor.set_requires_grad(false);
            }
        }
        let loss = DiffusionLoss::new(config, &model.schedule, training.min_snr_gamma, device)?;
        let dropout = PromptDropout::new(training.conditioning_dropout)?;
        if training.conditioning_dropout > 0. {
            check_dropout(&model)?;
        }
        let DiffusionTraining { offset_noise, prior_loss_weight, .. } = training;
        let consistency = training
            .consistency
            .map(|(consistency, steps)| Consistency::new(consistency, steps, config, &model.schedule, device))
            .transpose()?;
        let names = [Vec::new(), Vec::new()];
        Ok(Self { model, dropout, offset_noise, prior_loss_weight, names, loss, consistency, overall_std })
    }

    /// The model under training.
    pub fn model(&self) -> &LatentDiffusion {
        &self.model
    }

    /// Takes the names of classes in previews from `data`.
    pub(crate) fn take_names(&mut self, data: &dyn Dataset) {
        self.names = [data.classes(), data.box_classes()].map(<[String]>::to_vec);
    }

    /// Returns true for consistency tuning, after which few steps of the sampler `lcm` suffice.
    pub(crate) fn is_consistency(&self) -> bool {
        self.consistency.is_some()
    }

    /// Names of classes and of classes of boxes.
    pub(crate) fn names(&self) -> &[Vec<String>; 2] {
        &self.names
    }

    /// Converts prompts to the model's conditioning.
    pub(crate) fn conditioner(&self) -> &dyn Conditioner {
        &*self.model.conditioner
    }

    /// The conditioner, to add a learned word.
    pub(crate) fn conditioner_mut(&mut self) -> &mut dyn Conditioner {
        &mut *self.model.conditioner
    }

    /// Loads the weights of another diffusion model, and its latent scale with `scale_by_std`; with `load_only_unet` of
    /// this model only the U-Net.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is another kind of model; [`Error::Weights`] listing every mismatch.
    pub fn start_from(&mut self, source: ModelSource, from: &InitFrom) -> Result<()> {
        let ModelConfig::LatentDiffusion(found) = &source.config else {
            return Err(Error::invalid(format!(
                "train.init_from: expected a diffusion model, got another model in {}; try \
                 model.params.first_stage_config.params.ckpt_path for a first stage",
                from.path.display()
            )));
        };
        let only_unet = self.model.config.load_only_unet;
        if self.model.config.scale_by_std && !only_unet {
            // Measured when training of that model began.
            let stored = source.checkpoint.contains("scale_factor");
            let scale = if stored { source.checkpoint.number("scale_factor")? } else { found.scale_factor };
            self.overall_std = Some(1. / scale);
            // The base of a LoRA is not prepared.
            self.model.scale_factor = scale;
        }
        let roots: &[&str] = if only_unet { &[UNET] } else { &[""] };
        let checkpoint = self.model.weights_of(source.checkpoint, from.ema).only(roots);
        from.fill(variables(self.model.vs(), roots), checkpoint)
    }

    /// Samples ε from N(0, 1), with offset noise plus a random constant per channel and sample, so that the model
    /// learns to change the mean of an image (Guttenberg 2023, "Diffusion with Offset Noise").
    pub(super) fn noise(&self, z: &Tensor, noise: &mut dyn NoiseSource) -> Tensor {
        let eps = noise.like(z);
        if self.offset_noise == 0. {
            return eps;
        }
        let each = noise.like(&z.narrow(2, 0, 1).narrow(3, 0, 1)); // [B, C, 1, 1]
        eps + each * self.offset_noise
    }

    /// Per-sample errors at given noise and timesteps, `[B]`.
    fn errors(
        &self,
        z: &Tensor,
        prompt: &Prompt,
        t: &Tensor,
        eps: &Tensor,
        noise: &mut dyn NoiseSource,
        train: bool,
    ) -> Result<Tensor> {
        let model = &self.model;
        let cond = model.noise_condition(model.condition(prompt, train)?, t, noise);
        let noisy = model.schedule.add_noise(z, eps, t);
        let target = model.parameterization.target(z, eps, &model.schedule.levels(t, z));
        let prediction = model.unet.forward(&noisy, t, &cond, train);
        Ok(self.loss.per_sample(&prediction, &target))
    }
}

impl Objective for DiffusionObjective {
    fn check_size(&self, size: [i64; 2]) -> Result<()> {
        self.model.first_stage.check_image_size(size)?;
        let [_, height, width] = self.model.first_stage.latent_size(size);
        self.model.unet.check_size([height, width])
    }

    /// The skip connections of the first level, or a convolution of the first stage.
    fn activations(&self, size: [i64; 2], cached: bool) -> i64 {
        let [_, height, width] = self.model.first_stage.latent_size(size);
        let unet = self.model.config.unet();
        let skipped = (unet.num_res_blocks + 1) * unet.model_channels * height * width;
        skipped.max(if cached { 0 } else { encoded(&self.model.config.first_stage_config, size) })
    }

    fn check_batch(&self, batch: &Batch) -> Result<()> {
        if batch.latents.is_none() {
            let _ = input_images(self.model.input(), batch)?;
        }
        let prompt = prompt_for(&self.model, batch)?;
        tch::no_grad(|| self.model.condition(&prompt, false)).map(drop)
    }

    /// With `scale_by_std`, takes the standard deviation of the latents from the first stage's checkpoint, or computes
    /// it from the first batch, as CompVis does (`ddpm.py:479`).
    fn prepare(&mut self, first: &Batch, noise: &mut dyn NoiseSource) -> Result<()> {
        if self.model.config.scale_by_std {
            self.model.scale_factor = 1.;
            let std = match self.overall_std {
                Some(std) => std,
                None => latents(&self.model, first, noise)?.std(true).double_value(&[]),
            };
            // Rounded to f32 as in the checkpoint.
            self.model.scale_factor = f64::from((1. / std) as f32);
        }
        Ok(())
    }

    fn loss(&self, info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        let z = latents(&self.model, batch, noise)?; // [B, C, h, w]
        if let Some(consistency) = &self.consistency {
            return self.consistency_loss(consistency, info.global_step, &z, batch, noise);
        }
        let t = noise.integers(self.model.config.timesteps as i64, z.size()[0], &z);
        let eps = self.noise(&z, noise);
        let prompt = self.dropout.apply(&*self.model.conditioner, prompt_for(&self.model, batch)?, noise)?;
        let each = self.errors(&z, &prompt, &t, &eps, noise, true)?;
        Ok(match self.prior_loss_weight {
            None => self.loss.reduce(&each, &t),
            Some(weight) => self.loss.reduce_with_prior(&each, &t, weight),
        })
    }

    fn phases(&self) -> Vec<Phase> {
        let mut trainable = with_gradients(variables(self.model.vs(), &[UNET, CONDITIONER]));
        if let Some(logvar) = self.loss.learned_logvar() {
            trainable.push((LOGVAR.into(), logvar.shallow_clone()));
            trainable.sort_by(|a, b| a.0.cmp(&b.0));
        }
        vec![Phase::new("diffusion", trainable)]
    }

    /// Only the U-Net, as in CompVis (`ddpm.py:83`).
    fn ema_parameters(&self) -> NamedTensors {
        variables(self.model.vs(), &[UNET])
    }

    fn weights(&self) -> NamedTensors {
        let mut weights = variables(self.model.vs(), &[""]);
        for (name, values) in self.model.schedule.buffers() {
            weights.push((name.to_owned(), Tensor::from_slice(&values)));
        }
        if self.model.config.scale_by_std {
            weights.push(("scale_factor".into(), Tensor::from(self.model.scale_factor as f32)));
        }
        if let Some(logvar) = self.loss.learned_logvar() {
            weights.push((LOGVAR.into(), logvar.shallow_clone()));
        }
        weights
    }

    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        if self.model.config.scale_by_std {
            self.model.scale_factor = checkpoint.number("scale_factor")?;
        }
        if let Some(logvar) = self.loss.learned_logvar() {
            let value = checkpoint.tensor(LOGVAR)?;
            tch::no_grad(|| logvar.shallow_clone().copy_(&value));
        }
        let mut skipped = SCHEDULE_BUFFERS.to_vec();
        skipped.extend(["scale_factor", LOGVAR]);
        checkpoint.without(&skipped).load_into(self.model.vs_mut())
    }

    fn as_validate(&self) -> Option<&dyn Validate> {
        Some(self)
    }

    fn as_preview(&self) -> Option<&dyn Preview> {
        Some(self)
    }

    fn as_latent_encoder(&self) -> Option<&dyn LatentEncoder> {
        (!conditions_on_image(&self.model)).then_some(self)
    }
}

impl LatentEncoder for DiffusionObjective {
    fn latent_moments(&self, batch: &Batch) -> Result<Tensor> {
        latent_moments(&self.model, batch)
    }

    fn encoder_weights(&self) -> NamedTensors {
        self.weights()
    }
}

impl Validate for DiffusionObjective {
    /// Computes the losses at evenly spaced timesteps, with the same noise at every call.
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>> {
        let (mut each, mut times) = (Vec::new(), Vec::new());
        for (index, batch) in batches.enumerate() {
            let batch = batch?;
            let mut noise = PerStep::new(0, 0, index as u64);
            let z = latents(&self.model, &batch, &mut noise)?;
            let t = evenly_spaced_timesteps(self.model.config.timesteps, &z);
            let eps = noise.like(&z);
            let prompt = prompt_for(&self.model, &batch)?;
            each.push(tch::no_grad(|| self.errors(&z, &prompt, &t, &eps, &mut noise, false))?);
            times.push(t);
        }
        if each.is_empty() {
            return Ok(Vec::new());
        }
        let all = tch::no_grad(|| self.loss.reduce(&Tensor::cat(&each, 0), &Tensor::cat(&times, 0)));
        Ok(all
            .parts
            .iter()
            .filter_map(|(name, value)| Some((validation_name(name)?, value.double_value(&[]))))
            .collect())
    }

    fn metrics(&self) -> Vec<&'static str> {
        let learned = self.loss.learned_logvar().map(|_| "val/loss_gamma");
        ["val/loss_simple", "val/loss_vlb", "val/loss"].into_iter().chain(learned).collect()
    }
}

/// CompVis' name of a loss part in validation (`ddpm.py:1019`).
fn validation_name(part: &str) -> Option<&'static str> {
    Some(match part {
        "loss_simple" => "val/loss_simple",
        "loss_gamma" => "val/loss_gamma",
        "loss_vlb" => "val/loss_vlb",
        "loss" => "val/loss",
        _ => return None, // `logvar`, which does not depend on the data
    })
}
