//! Stage two: denoise the latents of a frozen first stage.

use ldm_conditioning::PromptDropout;
use ldm_core::noise::PerStep;
use ldm_core::weights::Checkpoint;
use ldm_core::{NoiseSource, Prompt, Result};
use ldm_data::Batch;
use ldm_pipelines::{
    LatentDiffusion, LatentDiffusionConfig, LossType, Needs, SCHEDULE_BUFFERS, Sampling, find_tokenizer,
    generate,
};
use ldm_schedulers::{SamplerConfig, Spacing};
use tch::{Device, Kind, Tensor};

use crate::config::SampleConfig;
use crate::objective::{Loss, Moment, Objective, Turn, variables, with_gradients};

const UNET: &str = "model.diffusion_model.";
const CONDITIONER: &str = "cond_stage_model.";

/// L_simple (Ho et al. 2020, eq. 14) on latents, and the weighted bound beside it. CompVis `ddpm.py:1014` `p_losses`.
#[derive(Debug)]
pub struct DiffusionObjective {
    model: LatentDiffusion,
    /// Conditions are dropped at random, so that the model can be guided.
    dropout: PromptDropout,
    /// Weights of the variational bound, `[T]` on the device.
    elbo_weights: Tensor,
}

impl DiffusionObjective {
    /// A diffusion model with fresh weights; `first_stage`, where given, is the checkpoint of its frozen first
    /// stage.
    ///
    /// # Errors
    /// As [`LatentDiffusion::new`] and [`LatentDiffusion::load_first_stage`].
    pub fn new(
        config: &LatentDiffusionConfig,
        first_stage: Option<Checkpoint>,
        dropout: f64,
        device: Device,
    ) -> Result<Self> {
        let tokenizer = find_tokenizer(&config.cond_stage_config, None, None)?;
        let mut model = LatentDiffusion::new(config, tokenizer, device)?;
        if matches!(Needs::of(config), Needs::Text | Needs::FillingByText) {
            // A tokenizer that is missing is said now, not at the first batch.
            model.conditioner.condition(&Prompt::text([""]), false)?;
        }
        if let Some(checkpoint) = first_stage {
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
        let weights = model.schedule.lvlb_weights(config.parameterization);
        let elbo_weights = Tensor::from_slice(&weights).to_kind(Kind::Float).to_device(device);
        let dropout = PromptDropout::new(dropout)?;
        if dropout != PromptDropout::new(0.)? {
            // A model that has no word for "nothing" is refused now, not at the first batch.
            model.conditioner.null_prompt(1)?;
        }
        Ok(Self { model, dropout, elbo_weights })
    }

    /// The model under training.
    pub fn model(&self) -> &LatentDiffusion {
        &self.model
    }

    /// Per-sample losses at given noise and times.
    fn losses(&self, z: &Tensor, prompt: &Prompt, t: &Tensor, eps: &Tensor, train: bool) -> Result<Tensor> {
        let model = &self.model;
        let cond = model.condition(prompt, train)?;
        let noisy = model.schedule.add_noise(z, eps, t);
        let target = model.parameterization.target(z, eps, &model.schedule.levels(t, z));
        let prediction = model.unet.forward(&noisy, t, &cond, train).to_kind(Kind::Float);
        let difference = prediction - target;
        let difference = match model.config.loss_type {
            LossType::L1 => difference.abs(),
            LossType::L2 => difference.square(),
        };
        Ok(difference.mean_dim([1, 2, 3].as_slice(), false, Kind::Float)) // [B]
    }

    /// The prompt with conditions dropped at random, where the conditioner can do without them.
    fn drop_conditions(&self, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Prompt> {
        let prompt = batch.prompt.narrow(0, batch.images.size()[0]);
        self.dropout.apply(&*self.model.conditioner, prompt, noise)
    }
}

impl Objective for DiffusionObjective {
    fn check_size(&self, size: [i64; 2]) -> Result<()> {
        self.model.first_stage.check_image_size(size)?;
        let [_, height, width] = self.model.first_stage.latent_size(size);
        self.model.unet.check_size([height, width])
    }

    /// Measures the latents' standard deviation, as the reference on its very first batch (`ddpm.py:479`).
    fn prepare(&mut self, first: &Batch, noise: &mut dyn NoiseSource) -> Result<()> {
        if self.model.config.scale_by_std {
            self.model.scale_factor = 1.;
            let latents = self.model.encode(&first.images, noise);
            self.model.scale_factor = 1. / f64::from(latents.std(true).double_value(&[]) as f32);
        }
        Ok(())
    }

    fn loss(&self, _moment: Moment, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        let z = self.model.encode(&batch.images, noise); // [B, C, h, w]
        let t = noise.integers(self.model.config.timesteps as i64, z.size()[0], &z);
        let eps = noise.like(&z);
        let prompt = self.drop_conditions(batch, noise)?;
        let each = self.losses(&z, &prompt, &t, &eps, true)?;
        let simple = each.mean(Kind::Float);
        let vlb = (self.elbo_weights.index_select(0, &t) * &each).mean(Kind::Float);
        let config = &self.model.config;
        let mut total = &simple * config.l_simple_weight;
        if config.original_elbo_weight != 0. {
            total += &vlb * config.original_elbo_weight;
        }
        let parts =
            vec![("loss_simple", simple.detach()), ("loss_vlb", vlb.detach()), ("loss", total.detach())];
        Ok(Loss { total, parts })
    }

    fn turns(&self) -> Vec<Turn> {
        let trainable = with_gradients(variables(self.model.vs(), &[UNET, CONDITIONER]));
        vec![Turn { name: "diffusion", trainable, rate: 1. }]
    }

    /// The U-Net alone, as the reference (`ddpm.py:83`).
    fn averaged(&self) -> Vec<(String, Tensor)> {
        variables(self.model.vs(), &[UNET])
    }

    fn weights(&self) -> Vec<(String, Tensor)> {
        let mut weights = variables(self.model.vs(), &[""]);
        for (name, values) in self.model.schedule.buffers() {
            weights.push((name.to_owned(), Tensor::from_slice(&values)));
        }
        if self.model.config.scale_by_std {
            weights.push(("scale_factor".into(), Tensor::from(self.model.scale_factor as f32)));
        }
        weights
    }

    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        if self.model.config.scale_by_std {
            self.model.scale_factor = checkpoint.tensor("scale_factor")?.double_value(&[]);
        }
        let mut left_out = SCHEDULE_BUFFERS.to_vec();
        left_out.push("scale_factor");
        checkpoint.without(&left_out).load_into(self.model.vs_mut())
    }

    /// The mean of L_simple with the same times and noise at every call, the times spread evenly.
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>> {
        let (mut sum, mut count) = (0., 0);
        for (index, batch) in batches.enumerate() {
            let batch = batch?;
            let mut noise = PerStep::new(0, 0, index as u64);
            let z = self.model.encode(&batch.images, &mut noise);
            let (size, steps) = (z.size()[0], self.model.config.timesteps as i64);
            let t =
                (Tensor::arange(size, (Kind::Int64, z.device())) * steps).divide_scalar_mode(size, "floor");
            let eps = noise.like(&z);
            let each = tch::no_grad(|| self.losses(&z, &batch.prompt, &t.to_kind(Kind::Int64), &eps, false))?;
            sum += each.sum(Kind::Double).double_value(&[]);
            count += size;
        }
        Ok(if count == 0 { Vec::new() } else { vec![("val/loss_simple", sum / count as f64)] })
    }

    /// Samples, a row of each class in turn; of a model that is told something else, at most the batch's prompts.
    fn preview(&self, batch: &Batch, config: &SampleConfig) -> Result<Tensor> {
        let columns = (config.count as f64).sqrt().ceil() as i64;
        let mut count = config.count;
        let model = &self.model.config;
        let prompt = match Needs::of(model) {
            Needs::Nothing => Prompt::default(),
            Needs::Class => {
                let null =
                    model.class().is_some_and(|class| class.null_class.is_some() || class.n_classes == 1001);
                let classes = model.classes().unwrap_or(1) - i64::from(null);
                Prompt::class(&(0..count as i64).map(|i| i % classes).collect::<Vec<_>>())
            }
            _ => {
                count = count.min(batch.images.size()[0] as usize);
                batch.prompt.narrow(0, count as i64)
            }
        };
        let sampling = Sampling {
            sampler: SamplerConfig::Ddim { eta: config.eta },
            spacing: Spacing::default(),
            steps: config.steps,
            guidance_scale: config.guidance_scale,
            size: None,
        };
        let seeds: Vec<u64> = (0..count as u64).collect();
        let made = generate(&self.model, &prompt, None, &seeds, &sampling, None, &mut |_| {})?;
        Ok(ldm_core::image::grid(&made.images.clamp(-1., 1.), columns, 2))
    }
}
