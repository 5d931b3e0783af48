//! First-stage training: reconstruction through a latent.

use std::sync::atomic::AtomicBool;

use ldm_autoencoder::{
    Autoencoder, Bottleneck, CodebookUpdate, FirstStage, FirstStageConfig, ImageKind, Posterior,
};
use ldm_checkpoint::Checkpoint;
use ldm_core::noise::Seeded;
use ldm_core::{NoiseSource, Result, upload};
use ldm_data::Batch;
use ldm_metrics::{Lpips, MeanStd, label_accuracy, psnr};
use ldm_pipelines::{ModelConfig, ModelSource};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::config::SampleConfig;
use crate::latents::{LatentStatistics, LatentSums, input_images};
use crate::objective::batch_resize::BatchResize;
use crate::objective::first_stage_images::{activations, check_images, discriminator_condition};
use crate::objective::init_from::InitFrom;
use crate::objective::losses::{
    AdversarialLoss, LossConfig, LpipsWithDiscriminator, Pair, ReconstructionLoss, latent_loss,
    reconstruction_loss,
};
use crate::objective::preview_grid::{in_rows, shown_rgb};
use crate::objective::{
    Export, Exported, Loss, NamedTensors, Objective, Phase, Preview, StepInfo, Validate, shallow, variables,
    with_gradients,
};

/// Reconstruction plus the latent's regularization; with the published losses also LPIPS and a discriminator, which has
/// its own phase.
///
/// KL first stages use sums over a sample, as in CompVis (`contperceptual.py:45`): Σ|x − y| + w·KL. VQ first stages use
/// means (`vqperceptual.py:56`): mean|x − y| + w·codebook loss.
#[derive(Debug)]
pub struct AutoencoderObjective {
    vs: VarStore,
    channels_last: bool,
    model: Autoencoder,
    loss: FirstStageLoss,
    /// The autoencoder's parameters.
    ema_parameters: NamedTensors,
    /// Trained parameters of the autoencoder and of the discriminator.
    trainable: [NamedTensors; 2],
    /// The autoencoder's learning rate as a multiple of the discriminator's.
    lr_scale: f64,
    codebook: Option<CodebookUpdate>,
    resize: Option<BatchResize>,
    /// Activations of a pixel: see [`Objective::activations`].
    activations: i64,
}

#[derive(Debug)]
enum FirstStageLoss {
    Reconstruction(ReconstructionLoss),
    Adversarial(Box<LpipsWithDiscriminator>),
}

/// Prefixes of tensors that are used only in training.
const DISCRIMINATOR: &str = "loss.discriminator.";
const LOSS: &str = "loss.";

impl AutoencoderObjective {
    /// A first stage with random weights, and the loss of its `lossconfig`. LPIPS has the published weights if they are
    /// installed ([`Lpips::published_or_random`]); otherwise [`Objective::notes`] says so.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] when the config is invalid; the errors of loading LPIPS.
    pub fn new(config: &FirstStageConfig, device: Device) -> Result<Self> {
        Self::with_lpips(config, device, Lpips::published_or_random)
    }

    /// [`AutoencoderObjective::new`] with another LPIPS; `lpips` is called if the loss has a weight for it.
    ///
    /// # Errors
    /// As [`AutoencoderObjective::new`].
    pub fn with_lpips(
        config: &FirstStageConfig,
        device: Device,
        lpips: impl FnOnce(Device) -> Result<Lpips>,
    ) -> Result<Self> {
        let loss = LossConfig::of(config)?;
        check_images(config)?;
        let vs = VarStore::new(device);
        let model = Autoencoder::new(&vs.root(), config)?;
        let ema_parameters = with_gradients(variables(&vs, &[""]));
        let adversarial = |config: AdversarialLoss, kl: bool| {
            let lpips = (config.perceptual_weight > 0.).then(|| lpips(device)).transpose()?;
            let loss = LpipsWithDiscriminator::new(&(vs.root() / "loss"), config, kl, lpips);
            Ok::<_, ldm_core::Error>(FirstStageLoss::Adversarial(Box::new(loss)))
        };
        let loss = match loss {
            LossConfig::None => FirstStageLoss::Reconstruction(ReconstructionLoss::default()),
            LossConfig::Reconstruction(loss) => FirstStageLoss::Reconstruction(loss),
            LossConfig::Kl(config) => adversarial(config, true)?,
            LossConfig::Vq(config) => adversarial(config, false)?,
        };
        let (lr_scale, codebook) = match (config, model.codebook()) {
            (FirstStageConfig::Vq(vq), Some(codebook)) => {
                (vq.lr_g_factor, CodebookUpdate::new(&(vs.root() / "quantize"), codebook, &vq.codebook()))
            }
            _ => (1., None),
        };
        let by_ema = codebook.as_ref().is_some_and(CodebookUpdate::averages);
        let trained = with_gradients(variables(&vs, &[""])).into_iter();
        let (discriminator, mut autoencoder): (Vec<_>, Vec<_>) =
            trained.partition(|(name, _)| name.starts_with(DISCRIMINATOR));
        autoencoder.retain(|(name, _)| !(by_ema && name == "quantize.embedding.weight"));
        let channels_last = ldm_libtorch::prefers_channels_last(device, 0, true);
        if channels_last {
            ldm_libtorch::channels_last(&vs);
        }
        let objective = Self {
            vs,
            channels_last,
            model,
            loss,
            ema_parameters,
            trainable: [autoencoder, discriminator],
            lr_scale,
            codebook,
            resize: None,
            activations: activations(config),
        };
        let resize = BatchResize::of(config, &|size| objective.check_size(size))?;
        Ok(Self { resize, ..objective })
    }

    /// Loads the weights of a first stage, or of a diffusion model's first stage. The discriminator and the EMA of a
    /// codebook are loaded if both models have them.
    ///
    /// # Errors
    /// [`ldm_core::Error::Weights`] listing every mismatch.
    pub fn start_from(&mut self, source: ModelSource, from: &InitFrom) -> Result<()> {
        let checkpoint = match source.config {
            ModelConfig::LatentDiffusion(_) => source.checkpoint.scope("first_stage_model."),
            _ => source.checkpoint,
        };
        let mut targets = variables(&self.vs, &[""]);
        let mut skipped = vec!["model_ema.", "loss.perceptual_loss."];
        if !targets.iter().any(|(name, _)| name.starts_with(LOSS)) {
            skipped.push(LOSS);
        }
        let training_only = |name: &str| name.starts_with(LOSS) || CodebookUpdate::holds(name);
        targets.retain(|(name, _)| !training_only(name) || checkpoint.contains(name));
        from.fill(targets, checkpoint.without(&skipped))?;
        if let FirstStageLoss::Adversarial(loss) = &self.loss {
            loss.loaded();
        }
        Ok(())
    }

    /// The images of a batch as the model takes them, on its device and in its memory format.
    fn images(&self, batch: &Batch) -> Result<Tensor> {
        let images = input_images(self.model.input(), batch)?;
        let size = images.size();
        self.check_size([size[2], size[3]])?;
        let images = upload(&images, self.vs.device());
        Ok(if self.channels_last { ldm_libtorch::to_channels_last(&images) } else { images })
    }

    /// The discriminator's condition, with `disc_conditional`.
    fn condition(&self, batch: &Batch, image: &Tensor) -> Result<Option<Tensor>> {
        let FirstStageLoss::Adversarial(loss) = &self.loss else { return Ok(None) };
        let channels = loss.condition_channels(self.model.output_channels());
        channels.map(|channels| discriminator_condition(batch, channels, image)).transpose()
    }

    /// Logs codebook usage, and collects the batch for codebook updates without gradients.
    fn log_codebook(&self, bottleneck: &Bottleneck, loss: &mut Loss) {
        if let (Bottleneck::Vq(quantized), Some(codebook)) = (bottleneck, self.model.codebook()) {
            let usage = codebook.usage(&quantized.indices);
            loss.parts.push(("perplexity", usage.perplexity));
            loss.parts.push(("cluster_usage", usage.entries));
            if let Some(update) = &self.codebook {
                update.see(quantized);
            }
        }
    }
}

impl Objective for AutoencoderObjective {
    fn check_batch(&self, batch: &Batch) -> Result<()> {
        let images = input_images(self.model.input(), batch)?;
        self.condition(batch, &images).map(drop)
    }

    fn activations(&self, size: [i64; 2], _cached: bool) -> i64 {
        let [height, width] = self.resize.as_ref().map_or(size, BatchResize::largest);
        self.activations * height * width
    }

    fn check_size(&self, size: [i64; 2]) -> Result<()> {
        self.model.check_image_size(size)?;
        match &self.loss {
            FirstStageLoss::Reconstruction(_) => Ok(()),
            FirstStageLoss::Adversarial(loss) => loss.check_size(size),
        }
    }

    /// The autoencoder, then the discriminator, if any. Each phase runs the autoencoder on the batch, as in CompVis:
    /// the discriminator sees the autoencoder after its step.
    fn phases(&self) -> Vec<Phase> {
        let [autoencoder, discriminator] = &self.trainable;
        let generator = Phase::new("generator", shallow(autoencoder));
        let mut phases = vec![Phase { lr_scale: self.lr_scale, ..generator }];
        if !discriminator.is_empty() {
            phases.push(Phase::new("discriminator", shallow(discriminator)));
        }
        phases
    }

    fn loss(&self, info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        let mut image = self.images(batch)?; //                                            [B, C, H, W]
        if let Some(resize) = &self.resize {
            image = resize.apply(&image, info.global_step, noise);
        }
        if info.phase == 1 {
            let FirstStageLoss::Adversarial(loss) = &self.loss else {
                panic!("a loss without a discriminator has one phase");
            };
            let pass = tch::no_grad(|| self.model.forward(&image, noise, true));
            let condition = self.condition(batch, &image)?;
            let reconstruction = &pass.image.to_kind(Kind::Float);
            let pair = Pair { image: &image, reconstruction, condition: condition.as_ref() };
            return Ok(loss.discriminator_loss(info.global_step, &pair));
        }
        let pass = self.model.forward(&image, noise, true);
        let reconstruction = pass.image.to_kind(Kind::Float);
        let mut loss = match &self.loss {
            FirstStageLoss::Reconstruction(config) => {
                reconstruction_loss(config, &image, &reconstruction, &pass.bottleneck)
            }
            FirstStageLoss::Adversarial(loss) => {
                let latent = latent_loss(&pass.bottleneck);
                let condition = self.condition(batch, &image)?;
                let pair =
                    Pair { image: &image, reconstruction: &reconstruction, condition: condition.as_ref() };
                loss.generator_loss(info.global_step, &pair, &latent, self.model.last_layer())
            }
        };
        self.log_codebook(&pass.bottleneck, &mut loss);
        Ok(loss)
    }

    fn after_step(&mut self, noise: &mut dyn NoiseSource) {
        if let (Some(update), Some(codebook)) = (&mut self.codebook, self.model.codebook()) {
            update.step(codebook, noise);
        }
    }

    fn ema_parameters(&self) -> NamedTensors {
        shallow(&self.ema_parameters)
    }

    /// Includes the discriminator, `loss.logvar` and the codebook's EMA; without LPIPS, which is constant.
    fn weights(&self) -> NamedTensors {
        variables(&self.vs, &[""])
    }

    fn notes(&self) -> Vec<String> {
        match &self.loss {
            FirstStageLoss::Reconstruction(_) => Vec::new(),
            FirstStageLoss::Adversarial(loss) => loss.note().into_iter().collect(),
        }
    }

    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        match &self.loss {
            FirstStageLoss::Reconstruction(_) => checkpoint.without(&[LOSS]).load_into(&mut self.vs),
            FirstStageLoss::Adversarial(loss) => {
                // LPIPS is part of CompVis checkpoints.
                checkpoint.without(&["loss.perceptual_loss."]).load_into(&mut self.vs)?;
                loss.loaded();
                Ok(())
            }
        }
    }

    fn as_validate(&self) -> Option<&dyn Validate> {
        Some(self)
    }

    fn as_preview(&self) -> Option<&dyn Preview> {
        Some(self)
    }

    fn as_export(&self) -> Option<&dyn Export> {
        Some(self)
    }
}

impl Validate for AutoencoderObjective {
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>> {
        // Label maps have labels to compare, and no signal in [-1, 1].
        let (name, fidelity): (_, fn(&Tensor, &Tensor) -> Tensor) = match self.model.input() {
            ImageKind::Pixels(_) => ("val/psnr", psnr),
            ImageKind::LabelMap(_) => ("val/accuracy", label_accuracy),
        };
        let (mut fidelities, mut rec, mut perceptual, mut count) = (MeanStd::new(), 0., 0., 0.);
        for batch in batches {
            let image = self.images(&batch?)?;
            let decoded = tch::no_grad(|| self.model.decode(&self.model.encode(&image).mode()));
            fidelities.add(&fidelity(&decoded, &image));
            let (each, lpips) = tch::no_grad(|| match &self.loss {
                FirstStageLoss::Reconstruction(_) => ((&decoded - &image).abs().mean(Kind::Double), None),
                FirstStageLoss::Adversarial(loss) => loss.compare(&image, &decoded),
            });
            let images = image.size()[0] as f64;
            rec += each.double_value(&[]) * images;
            perceptual += lpips.map_or(0., |lpips| lpips.double_value(&[])) * images;
            count += images;
        }
        if count == 0. {
            return Ok(Vec::new());
        }
        let mut metrics = vec![(name, fidelities.mean()), ("val/rec_loss", rec / count)];
        if let FirstStageLoss::Adversarial(loss) = &self.loss
            && loss.has_lpips()
        {
            metrics.push(("val/p_loss", perceptual / count));
        }
        Ok(metrics)
    }

    fn metrics(&self) -> Vec<&'static str> {
        let is_pixels = matches!(self.model.input(), ImageKind::Pixels(_));
        let lpips = matches!(&self.loss, FirstStageLoss::Adversarial(loss) if loss.has_lpips());
        let fidelity = if is_pixels { "val/psnr" } else { "val/accuracy" };
        [fidelity, "val/rec_loss"].into_iter().chain(lpips.then_some("val/p_loss")).collect()
    }
}

impl Preview for AutoencoderObjective {
    /// Renders images, their reconstructions, and for KL as many decoded samples of the prior N(0, 1), as CompVis'
    /// `log_images` (`autoencoder.py:401`). Label maps are in colors.
    fn preview(&self, batch: &Batch, config: &SampleConfig, _stop: &AtomicBool) -> Result<Tensor> {
        let image = self.images(batch)?;
        let count = image.size()[0].min(config.count as i64);
        let image = image.narrow(0, 0, count);
        let mut noise = Seeded::new(0..count as u64);
        let rows = tch::no_grad(|| {
            let z = match self.model.encode(&image) {
                posterior @ Posterior::Gaussian { .. } => posterior.sample(&mut noise),
                Posterior::Point(z) => z,
            };
            let decoded = self.model.decode(&z);
            [Some(image), Some(decoded), self.model.prior_samples(&z, &mut noise)]
        });
        let rows: Vec<Tensor> = rows.iter().flatten().map(|row| shown_rgb(&self.model, row)).collect();
        Ok(in_rows(&rows))
    }
}

impl Export for AutoencoderObjective {
    /// Exports the autoencoder without the discriminator and the EMA of the codebook.
    fn export(&self, _ema: &[(String, Tensor)]) -> Result<Exported> {
        let training_only = |name: &str| name.starts_with(LOSS) || CodebookUpdate::holds(name);
        Ok(Exported::Model(self.weights().into_iter().filter(|(name, _)| !training_only(name)).collect()))
    }

    fn latent_statistics(
        &self,
        batches: &mut dyn Iterator<Item = Result<Batch>>,
    ) -> Result<Option<LatentStatistics>> {
        let mut sums = LatentSums::default();
        for batch in batches {
            let image = self.images(&batch?)?;
            sums.add(&tch::no_grad(|| self.model.encode(&image)));
        }
        Ok(sums.finish())
    }
}
