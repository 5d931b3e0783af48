//! The model: first stage, U-Net, conditioner, schedule, and the scale between them.

use ldm_autoencoder::FirstStage;
use ldm_conditioning::Conditioner;
use ldm_core::weights::Checkpoint;
use ldm_core::{Error, NoiseSource, Result};
use ldm_schedulers::{NoiseSchedule, Parameterization};
use ldm_unet::UNet;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::config::{ConditioningKey, LatentDiffusionConfig};

/// The buffers a CompVis checkpoint holds at its root, which follow from the config.
pub const SCHEDULE_BUFFERS: [&str; 12] = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
];

/// A diffusion model on the latents of a first stage. CompVis `ddpm.py:424` `LatentDiffusion`.
///
/// One variable store holds all parts under CompVis' roots `model.diffusion_model`, `first_stage_model` and
/// `cond_stage_model`.
#[derive(Debug)]
pub struct LatentDiffusion {
    vs: VarStore,
    /// Whether the first stage's convolutions are laid out so; the U-Net looks at its own.
    channels_last: bool,
    kind: Kind,
    /// Pixels ↔ latents.
    pub first_stage: Box<dyn FirstStage>,
    /// The denoising network.
    pub unet: UNet,
    /// Prompt → conditioning.
    pub conditioner: Box<dyn Conditioner>,
    /// β over training time.
    pub schedule: NoiseSchedule,
    /// What the network predicts.
    pub parameterization: Parameterization,
    /// Latents are multiplied by it after encoding and divided by it before decoding.
    pub scale_factor: f64,
    /// Names of the classes, where the file says them (metadata `classes`, a JSON list).
    pub classes: Vec<String>,
    /// What the model was built from.
    pub config: LatentDiffusionConfig,
}

impl LatentDiffusion {
    /// Builds the model with fresh weights (drawn from libtorch's global generator) on `device`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a part cannot be what its config says, or parts do not fit each other.
    pub fn new(config: &LatentDiffusionConfig, device: Device) -> Result<Self> {
        config.check()?;
        let vs = VarStore::new(device);
        let root = vs.root();
        let unet = UNet::new(&(&root / "model" / "diffusion_model"), config.unet())?;
        let first_stage = ldm_autoencoder::build(&(&root / "first_stage_model"), &config.first_stage_config)?;
        let conditioner = config.cond_stage_config.build(&(&root / "cond_stage_model"))?;
        let channels_last = ldm_libtorch::prefers_channels_last(device, 0, true);
        let model = Self {
            vs,
            channels_last,
            kind: Kind::Float,
            first_stage,
            unet,
            conditioner,
            schedule: NoiseSchedule::new(&config.schedule())?,
            parameterization: config.parameterization,
            scale_factor: config.scale_factor,
            classes: Vec::new(),
            config: config.clone(),
        };
        model.check_parts()?;
        model.lay_out();
        Ok(model)
    }

    /// Puts the weights into the layout decided on.
    fn lay_out(&self) {
        if self.channels_last {
            ldm_libtorch::channels_last(&self.vs);
        }
    }

    /// A first stage's input where and how its weights are.
    pub(crate) fn place(&self, x: &Tensor) -> Tensor {
        let x = x.to_device(self.vs.device()).to_kind(self.kind());
        if self.channels_last { ldm_libtorch::to_channels_last(&x) } else { x }
    }

    /// Refuses parts that cannot work together, before a forward would.
    fn check_parts(&self) -> Result<()> {
        let (config, unet) = (&self.config, self.config.unet());
        let latent = self.first_stage.latent_channels();
        if config.channels != latent {
            return Err(Error::invalid(format!(
                "channels: the first stage has latents of {latent} channels, got {}",
                config.channels
            )));
        }
        if unet.in_channels != latent {
            return Err(Error::invalid(format!(
                "unet_config.params.in_channels: expected the latent's {latent} channels, got {}",
                unet.in_channels
            )));
        }
        if unet.out_channels != latent {
            return Err(Error::invalid(format!(
                "unet_config.params.out_channels: expected the latent's {latent} channels, got {}",
                unet.out_channels
            )));
        }
        if unet.num_classes.is_some() {
            return Err(Error::invalid(
                "unet_config.params.num_classes: no conditioner here gives class labels, leave it out",
            ));
        }
        if unet.n_embed.is_some() {
            return Err(Error::invalid(
                "unet_config.params.n_embed: predicting codebook entries is no diffusion model, leave it out",
            ));
        }
        if config.conditioning_key() != Some(ConditioningKey::Crossattn) && unet.context_dim.is_some() {
            return Err(Error::invalid(
                "unet_config.params.context_dim: the model is unconditional and gives no context, leave it out",
            ));
        }
        if config.conditioning_key() == Some(ConditioningKey::Crossattn) {
            let width = config.context_dim();
            if width != unet.context_dim {
                return Err(Error::invalid(format!(
                    "unet_config.params.context_dim: the conditioner gives {}, got {}",
                    or_none(width),
                    or_none(unet.context_dim)
                )));
            }
        }
        self.unet.check_size([config.image_size, config.image_size])
    }

    /// Builds the model and loads every weight from a CompVis state dict (or ours, which has the same names).
    ///
    /// Schedule buffers and training leftovers (`logvar`, EMA copies) follow from the config or are no weights, and
    /// are passed over; everything else must fit both ways.
    ///
    /// # Errors
    /// As [`LatentDiffusion::new`], and [`Error::Weights`] listing every name that does not fit.
    pub fn load(
        config: &LatentDiffusionConfig,
        checkpoint: Checkpoint,
        ema: bool,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        let mut model = Self::new(config, device)?;
        cast(&mut model.vs, kind);
        model.kind = kind;
        let narrowest = config.unet().model_channels.min(config.first_stage_config.narrowest());
        model.channels_last = ldm_libtorch::prefers_channels_last(device, narrowest, false);
        model.lay_out();
        let names: Vec<String> = model.vs.variables().into_keys().collect();
        let checkpoint = if ema && checkpoint.has_ema() { checkpoint.ema_over(&names) } else { checkpoint };
        if let Some(classes) = checkpoint.metadata().get("classes") {
            model.classes = serde_json::from_str(classes)
                .map_err(|error| Error::format(checkpoint.path(), format!("metadata `classes`: {error}")))?;
        }
        let mut left_out = SCHEDULE_BUFFERS.to_vec();
        left_out.extend(["scale_factor", "logvar", "model_ema.", "first_stage_model.loss."]);
        checkpoint.clone().without(&left_out).load_into(&mut model.vs)?;
        if config.scale_by_std {
            let scale = checkpoint.tensor("scale_factor").map_err(|_| {
                Error::format(
                    checkpoint.path(),
                    "scale_by_std is set and the file has no tensor `scale_factor`",
                )
            })?;
            model.scale_factor = scale.double_value(&[]);
        }
        Ok(model)
    }

    /// Loads the first stage's weights from a checkpoint of it alone.
    ///
    /// # Errors
    /// [`Error::Weights`] listing every name that does not fit.
    pub fn load_first_stage(&mut self, checkpoint: Checkpoint) -> Result<()> {
        checkpoint.without(&["loss.", "model_ema."]).load_scope(&self.vs, "first_stage_model.")
    }

    /// Every variable of every part.
    pub fn vs(&self) -> &VarStore {
        &self.vs
    }

    /// The store, for loading into it.
    pub fn vs_mut(&mut self) -> &mut VarStore {
        &mut self.vs
    }

    /// The dtype of the weights.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Encodes pictures into scaled latents; KL posteriors are sampled. CompVis `ddpm.py:545`.
    ///
    /// # Shapes
    /// - `image`: `[B, 3, H, W]` in `[-1, 1]`; returns `[B, C, H/f, W/f]` f32
    pub fn encode(&self, image: &Tensor, noise: &mut dyn NoiseSource) -> Tensor {
        let image = self.place(image);
        tch::no_grad(|| {
            self.first_stage.encode(&image).sample(noise).to_kind(Kind::Float) * self.scale_factor
        })
    }

    /// Decodes scaled latents into pictures, not clamped. CompVis `ddpm.py:706`.
    ///
    /// Decodes in the weights' own dtype; in half precision values may overflow, which the caller must look for.
    ///
    /// # Shapes
    /// - `z`: `[B, C, h, w]`; returns `[B, 3, f·h, f·w]` f32
    pub fn decode(&self, z: &Tensor) -> Tensor {
        let z = self.place(&(z.to_kind(Kind::Float) / self.scale_factor));
        tch::no_grad(|| self.first_stage.decode(&z).to_kind(Kind::Float))
    }
}

/// Weights to `kind`; integer buffers stay, which `VarStore::set_kind` would convert too.
pub(crate) fn cast(vs: &mut VarStore, kind: Kind) {
    match kind {
        Kind::Half => vs.half(),
        Kind::BFloat16 => vs.bfloat16(),
        Kind::Double => vs.double(),
        _ => vs.float(),
    }
}

fn or_none(value: Option<i64>) -> String {
    value.map_or_else(|| "none".into(), |value| value.to_string())
}
