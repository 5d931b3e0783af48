//! Which class noisy latents show: what guides a diffusion model.

use ldm_checkpoint::Checkpoint;
use ldm_core::noise::{PerStep, Seeded};
use ldm_core::{Error, NoiseSource, Result};
use ldm_data::Batch;
use ldm_pipelines::{ClassifierConfig, LatentDiffusion, LoadOptions, ModelConfig, ModelSource};
use ldm_unet::EncoderUNet;
use tch::nn::VarStore;
use tch::{Device, Kind, Reduction, Tensor};

use crate::config::SampleConfig;
use crate::init_from::InitFrom;
use crate::latents::{evenly_spaced_timesteps, latents, moments};
use crate::objective::{Loss, Objective, Phase, StepInfo, variables};
use crate::preview::framed;

/// CompVis' names: the network, and the frozen diffusion model beside it.
const NETWORK: &str = "model.";
const DIFFUSION: &str = "diffusion_model.";

/// Cross-entropy of the class of z_t at uniform t, on the latents of a frozen diffusion model. CompVis
/// `classifier.py:179` `shared_step`.
///
/// Of the diffusion model its first stage, scale and schedule are used. The reference's own file asks it for
/// `use_continuous_noise`, which no published model has, and does not run as it is.
#[derive(Debug)]
pub struct ClassifierObjective {
    diffusion: LatentDiffusion,
    vs: VarStore,
    network: EncoderUNet,
    config: ClassifierConfig,
}

impl ClassifierObjective {
    /// A classifier with fresh weights.
    ///
    /// # Errors
    /// As [`ClassifierConfig::network`], [`ClassifierConfig::diffusion`] and [`LatentDiffusion::load`];
    /// [`Error::Invalid`] when the network does not take the diffusion model's latents.
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
            return Err(Error::invalid(format!(
                "log_steps: expected at most {timesteps} steps, got {steps}"
            )));
        }
        let vs = VarStore::new(device);
        let network = EncoderUNet::new(&(vs.root() / "model"), &network)?;
        if ldm_libtorch::prefers_channels_last(device, 0, true) {
            ldm_libtorch::channels_last(&vs);
        }
        Ok(Self { diffusion, vs, network, config: config.clone() })
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
            return Err(Error::data(name(), "has no class, which the classifier is to learn"));
        };
        let highest = class.max().int64_value(&[]);
        if highest >= self.config.num_classes {
            return Err(Error::data(
                name(),
                format!(
                    "or one beside it is of class {highest}, and num_classes is {}",
                    self.config.num_classes
                ),
            ));
        }
        Ok(class.to_device(self.vs.device()))
    }

    /// `[B]` cross-entropy, and whether the class is among the first and among the first five.
    fn judge(logits: &Tensor, labels: &Tensor) -> [Tensor; 3] {
        let loss = logits.cross_entropy_loss(labels, None::<Tensor>, Reduction::None, -100, 0.);
        let among = |count: i64| {
            // The reference fails where there are fewer classes than asked for.
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

    fn check_batch(&self, batch: &Batch) -> Result<()> {
        self.labels(batch).map(drop)
    }

    /// Nothing to measure: the scale is the diffusion model's.
    fn prepare(&mut self, _first: &Batch, _noise: &mut dyn NoiseSource) -> Result<()> {
        Ok(())
    }

    fn moments(&self, images: &Tensor) -> Option<Tensor> {
        Some(moments(&self.diffusion, images))
    }

    fn encoder(&self) -> Vec<(String, Tensor)> {
        variables(self.diffusion.vs(), &["first_stage_model."])
    }

    fn phases(&self) -> Vec<Phase> {
        vec![Phase { name: "classifier", trainable: variables(&self.vs, &[NETWORK]), rate: 1. }]
    }

    fn loss(&self, _moment: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        let labels = self.labels(batch)?;
        let z = latents(&self.diffusion, batch, noise); // [B, C, h, w]
        let t = noise.integers(self.diffusion.config.timesteps as i64, z.size()[0], &z);
        let eps = noise.like(&z);
        let logits = self.logits(&z, &t, &eps, true);
        let [total, first, five] = Self::judge(&logits, &labels).map(|each| each.mean(Kind::Float));
        let parts = vec![("loss", total.detach()), ("acc@1", first), ("acc@5", five)];
        Ok(Loss { total, parts })
    }

    /// All of it; the reference keeps no average (`ema: null`).
    fn ema_parameters(&self) -> Vec<(String, Tensor)> {
        variables(&self.vs, &[NETWORK])
    }

    /// The network, and of the diffusion model what tells its latents from another's: the reference writes all of it.
    fn weights(&self) -> Vec<(String, Tensor)> {
        let mut weights = variables(&self.vs, &[NETWORK]);
        weights.extend(self.diffusion.latent_space());
        weights.sort_by(|a, b| a.0.cmp(&b.0));
        weights
    }

    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        checkpoint.without(&[DIFFUSION]).load_into(&mut self.vs)
    }

    fn start_from(&mut self, source: ModelSource, from: &InitFrom) -> Result<()> {
        if !matches!(source.config, ModelConfig::Classifier(_)) {
            return Err(Error::invalid(format!(
                "train.init_from: {} holds no classifier of noisy latents",
                from.path.display()
            )));
        }
        from.fill(variables(&self.vs, &[NETWORK]), source.checkpoint.without(&[DIFFUSION]))
    }

    /// The same times and noise at every call, the times evenly_spaced_timesteps evenly.
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>> {
        let mut judged = [Vec::new(), Vec::new(), Vec::new()];
        for (index, batch) in batches.enumerate() {
            let batch = batch?;
            let labels = self.labels(&batch)?;
            let mut noise = PerStep::new(0, 0, index as u64);
            let z = latents(&self.diffusion, &batch, &mut noise);
            let t = evenly_spaced_timesteps(self.diffusion.config.timesteps, &z);
            let eps = noise.like(&z);
            let each = tch::no_grad(|| Self::judge(&self.logits(&z, &t, &eps, false), &labels));
            judged.iter_mut().zip(each).for_each(|(all, each)| all.push(each));
        }
        if judged[0].is_empty() {
            return Ok(Vec::new());
        }
        let mean = |all: &[Tensor]| Tensor::cat(all, 0).mean(Kind::Double).double_value(&[]);
        let [loss, first, five] = judged.map(|all| mean(&all));
        Ok(vec![("val/loss", loss), ("val/acc@1", first), ("val/acc@5", five)])
    }

    /// A row an image: its latent at `log_steps` noise levels, from none to most, framed in green where it is classified
    /// rightly and in red where not. CompVis `classifier.py:238` `log_images`, which shows it of maps.
    fn preview(&self, batch: &Batch, config: &SampleConfig) -> Result<Tensor> {
        let count = batch.names.len().min(config.count) as i64;
        let labels = self.labels(batch)?.narrow(0, 0, count);
        let mut noise = Seeded::new(0..batch.names.len() as u64);
        let z = latents(&self.diffusion, batch, &mut noise);
        let (z, eps) = (z.narrow(0, 0, count), noise.like(&z).narrow(0, 0, count));
        let apart = self.diffusion.config.timesteps / self.config.log_steps;
        let columns: Vec<Tensor> = (0..self.config.log_steps)
            .map(|step| {
                let t = Tensor::full([count], (step * apart) as i64, (Kind::Int64, z.device()));
                let right = self.logits(&z, &t, &eps, false).argmax(1, false).eq_tensor(&labels);
                let noisy = self.diffusion.schedule.add_noise(&z, &eps, &t);
                framed(&self.diffusion.decode(&noisy), &right)
            })
            .collect();
        let all = Tensor::stack(&columns, 1).flatten(0, 1); // [count · log_steps, 3, H, W]
        Ok(ldm_core::image::grid(&all.clamp(-1., 1.), self.config.log_steps as i64, 2))
    }
}
