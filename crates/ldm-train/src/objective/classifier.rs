//! Training of classifiers of noisy latents, for classifier guidance.

use std::sync::atomic::{AtomicBool, Ordering};

use ldm_checkpoint::Checkpoint;
use ldm_core::noise::{PerStep, Seeded};
use ldm_core::{Error, NoiseSource, Result, upload};
use ldm_data::Batch;
use ldm_pipelines::{ClassifierConfig, LatentDiffusion, LoadOptions, ModelConfig, ModelSource};
use ldm_unet::EncoderUNet;
use tch::nn::VarStore;
use tch::{Device, Kind, Reduction, Tensor};

use crate::config::SampleConfig;
use crate::latents::{encoded, evenly_spaced_timesteps, input_images, latent_moments, latents};
use crate::objective::init_from::InitFrom;
use crate::objective::preview_grid::{framed, shown_rgb};
use crate::objective::{
    LatentEncoder, Loss, NamedTensors, Objective, Phase, Preview, StepInfo, Validate, variables,
};

/// CompVis' prefixes of the network and of the frozen diffusion model.
const NETWORK: &str = "model.";
const DIFFUSION: &str = "diffusion_model.";

/// Cross-entropy of the class of z_t at uniform t, on the latents of a frozen diffusion model. CompVis
/// `classifier.py:179` `shared_step`.
///
/// It uses the first stage, the scale and the noise schedule of the diffusion model. CompVis' own file requires
/// `use_continuous_noise` of that model, which no published model has, and fails.
#[derive(Debug)]
pub struct ClassifierObjective {
    diffusion: LatentDiffusion,
    vs: VarStore,
    network: EncoderUNet,
    /// Channels of the first level.
    network_channels: i64,
    config: ClassifierConfig,
}

impl ClassifierObjective {
    /// A classifier with random weights.
    ///
    /// # Errors
    /// As [`ClassifierConfig::network`], [`ClassifierConfig::diffusion`] and [`LatentDiffusion::load`];
    /// [`Error::Invalid`] when the network does not fit the diffusion model's latents.
    pub fn new(config: &ClassifierConfig, device: Device) -> Result<Self> {
        let network = config.network()?;
        let (source, diffusion) = config.diffusion()?;
        let checkpoint = source.checkpoint;
        let diffusion = LatentDiffusion::load(&diffusion, checkpoint, None, &LoadOptions::new(device))?;
        for tensor in diffusion.vs().variables().values() {
            let _ = tensor.set_requires_grad(false);
        }
        if network.in_channels != diffusion.config.channels {
            return Err(Error::invalid(format!(
                "classifier_config.in_channels: expected the latent's {} channels, got {}",
                diffusion.config.channels, network.in_channels
            )));
        }
        let (steps, timesteps) = (config.log_steps, diffusion.config.timesteps);
        if steps > timesteps {
            return Err(Error::invalid(format!("log_steps: expected at most {timesteps}, got {steps}")));
        }
        let vs = VarStore::new(device);
        let network_channels = network.model_channels;
        let network = EncoderUNet::new(&(vs.root() / "model"), &network)?;
        if ldm_libtorch::prefers_channels_last(device, 0, true) {
            ldm_libtorch::channels_last(&vs);
        }
        Ok(Self { diffusion, vs, network, network_channels, config: config.clone() })
    }

    /// Loads the weights of another classifier.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is another kind of model; [`Error::Weights`] listing every mismatch.
    pub fn start_from(&mut self, source: ModelSource, from: &InitFrom) -> Result<()> {
        if !matches!(source.config, ModelConfig::Classifier(_)) {
            return Err(Error::invalid(format!(
                "train.init_from: expected a classifier of noisy latents, got another model in {}",
                from.path.display()
            )));
        }
        from.fill(variables(&self.vs, &[NETWORK]), source.checkpoint.without(&[DIFFUSION]))
    }

    /// Logits of noisy latents, `[B, classes]` f32.
    fn logits(&self, z: &Tensor, t: &Tensor, eps: &Tensor, train: bool) -> Tensor {
        let noisy = tch::no_grad(|| self.diffusion.schedule.add_noise(z, eps, t)); // [B, C, h, w]
        self.network.forward(&noisy, t, train).to_kind(Kind::Float)
    }

    /// Classes of a batch, `[B]`, on the model's device.
    fn labels(&self, batch: &Batch) -> Result<Tensor> {
        let name = || batch.names.first().map_or("the data", String::as_str);
        let Some(class) = &batch.prompt.class else {
            return Err(Error::data(name(), "expected a class, got none"));
        };
        let highest = class.max().int64_value(&[]);
        if highest >= self.config.num_classes {
            return Err(Error::data(
                name(),
                format!("expected classes below num_classes, {}, got {highest}", self.config.num_classes),
            ));
        }
        Ok(upload(class, self.vs.device()))
    }

    /// `[B]` each: cross-entropy, top-1 and top-5 accuracy.
    fn metrics(logits: &Tensor, labels: &Tensor) -> [Tensor; 3] {
        let loss = logits.cross_entropy_loss(labels, None::<Tensor>, Reduction::None, -100, 0.);
        let among = |count: i64| {
            // CompVis fails with fewer than five classes.
            let (_, first) = logits.detach().topk(count.min(logits.size()[1]), 1, true, true);
            first.eq_tensor(&labels.unsqueeze(1)).any_dim(1, false).to_kind(Kind::Float)
        };
        [loss, among(1), among(5)]
    }
}

impl Objective for ClassifierObjective {
    fn check_size(&self, size: [i64; 2]) -> Result<()> {
        self.diffusion.first_stage.check_image_size(size)?;
        let [_, height, width] = self.diffusion.first_stage.latent_size(size);
        self.network.check_size([height, width])
    }

    fn activations(&self, size: [i64; 2], cached: bool) -> i64 {
        let [_, height, width] = self.diffusion.first_stage.latent_size(size);
        let convolution = 2 * self.network_channels * height * width;
        convolution.max(if cached { 0 } else { encoded(&self.diffusion.config.first_stage_config, size) })
    }

    fn check_batch(&self, batch: &Batch) -> Result<()> {
        if batch.latents.is_none() {
            let _ = input_images(self.diffusion.input(), batch)?;
        }
        self.labels(batch).map(drop)
    }

    fn phases(&self) -> Vec<Phase> {
        vec![Phase::new("classifier", variables(&self.vs, &[NETWORK]))]
    }

    fn loss(&self, _info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        let labels = self.labels(batch)?;
        let z = latents(&self.diffusion, batch, noise)?; // [B, C, h, w]
        let t = noise.integers(self.diffusion.config.timesteps as i64, z.size()[0], &z);
        let eps = noise.like(&z);
        let logits = self.logits(&z, &t, &eps, true);
        let [total, top1, top5] = Self::metrics(&logits, &labels).map(|each| each.mean(Kind::Float));
        let parts = vec![("loss", total.detach()), ("acc@1", top1), ("acc@5", top5)];
        Ok(Loss { total, parts })
    }

    /// The whole network; CompVis has no EMA (`ema: null`).
    fn ema_parameters(&self) -> NamedTensors {
        variables(&self.vs, &[NETWORK])
    }

    /// The network, and the first stage and scale of the diffusion model; CompVis writes all of that model.
    fn weights(&self) -> NamedTensors {
        let mut weights = variables(&self.vs, &[NETWORK]);
        weights.extend(self.diffusion.latent_space());
        weights.sort_by(|a, b| a.0.cmp(&b.0));
        weights
    }

    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        checkpoint.without(&[DIFFUSION]).load_into(&mut self.vs)
    }

    fn as_validate(&self) -> Option<&dyn Validate> {
        Some(self)
    }

    fn as_preview(&self) -> Option<&dyn Preview> {
        Some(self)
    }

    fn as_latent_encoder(&self) -> Option<&dyn LatentEncoder> {
        Some(self)
    }
}

impl LatentEncoder for ClassifierObjective {
    fn latent_moments(&self, batch: &Batch) -> Result<Tensor> {
        latent_moments(&self.diffusion, batch)
    }

    fn encoder_weights(&self) -> NamedTensors {
        variables(self.diffusion.vs(), &["first_stage_model."])
    }
}

impl Validate for ClassifierObjective {
    /// Computes loss and accuracy at evenly spaced timesteps, with the same noise at every call.
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>> {
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for (index, batch) in batches.enumerate() {
            let batch = batch?;
            let labels = self.labels(&batch)?;
            let mut noise = PerStep::new(0, 0, index as u64);
            let z = latents(&self.diffusion, &batch, &mut noise)?;
            let t = evenly_spaced_timesteps(self.diffusion.config.timesteps, &z);
            let eps = noise.like(&z);
            let each = tch::no_grad(|| Self::metrics(&self.logits(&z, &t, &eps, false), &labels));
            all.iter_mut().zip(each).for_each(|(all, each)| all.push(each));
        }
        if all[0].is_empty() {
            return Ok(Vec::new());
        }
        let mean = |all: &[Tensor]| Tensor::cat(all, 0).mean(Kind::Double).double_value(&[]);
        let [loss, top1, top5] = all.map(|all| mean(&all));
        Ok(vec![("val/loss", loss), ("val/acc@1", top1), ("val/acc@5", top5)])
    }

    fn metrics(&self) -> Vec<&'static str> {
        vec!["val/loss", "val/acc@1", "val/acc@5"]
    }
}

impl Preview for ClassifierObjective {
    /// Renders one row per image: its latent at `log_steps` increasing noise levels, framed in green if it is
    /// classified correctly and in red otherwise. CompVis `classifier.py:238` `log_images`, for label maps.
    fn preview(&self, batch: &Batch, config: &SampleConfig, stop: &AtomicBool) -> Result<Tensor> {
        let count = batch.names.len().min(config.count) as i64;
        let labels = self.labels(batch)?.narrow(0, 0, count);
        let mut noise = Seeded::new(0..batch.names.len() as u64);
        let z = latents(&self.diffusion, batch, &mut noise)?;
        let (z, eps) = (z.narrow(0, 0, count), noise.like(&z).narrow(0, 0, count));
        let stride = self.diffusion.config.timesteps / self.config.log_steps;
        let columns: Vec<Tensor> = (0..self.config.log_steps)
            .map(|step| {
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::Stopped);
                }
                let t = Tensor::full([count], (step * stride) as i64, (Kind::Int64, z.device()));
                let correct = self.logits(&z, &t, &eps, false).argmax(1, false).eq_tensor(&labels);
                let noisy = self.diffusion.schedule.add_noise(&z, &eps, &t);
                let shown = shown_rgb(&*self.diffusion.first_stage, &self.diffusion.decode(&noisy));
                Ok(framed(&shown, &correct))
            })
            .collect::<Result<_>>()?;
        let all = Tensor::stack(&columns, 1).flatten(0, 1); // [count · log_steps, 3, H, W]
        Ok(ldm_core::image::grid(&all.clamp(-1., 1.), self.config.log_steps as i64, 2))
    }
}
