//! Diffusers folders: `model_index.json`, and a folder for each component.

use std::collections::BTreeSet;
use std::path::Path;

use ldm_autoencoder::FirstStageConfig;
use ldm_checkpoint::Checkpoint;
use ldm_conditioning::ConditionerConfig;
use ldm_core::{Error, Result};
use ldm_unet::UNetConfig;
use serde_json::{Map, Value, json};

use crate::diffusers::component::Component;
use crate::diffusers::scheduler::{DiffusersScheduler, read_json};
use crate::{LatentDiffusionConfig, ModelConfig, ModelSource};

/// Components that do not affect images.
const IGNORED: [&str; 1] = ["image_encoder"];
/// Components of the safety checker, which does not belong to the model: `ldm` opens it next to it.
const SAFETY: [&str; 2] = ["safety_checker", "feature_extractor"];

/// The pipeline that concatenates a low-resolution image to the latent, and does not scale latents.
pub(crate) const SUPER_RESOLUTION: &str = "LDMSuperResolutionPipeline";

/// Metadata key of a first stage with a measured scale, which model folders and CompVis checkpoints hold as a tensor.
pub(crate) const MEASURED: &str = "scale_by_std";

/// The default side of latents in diffusers, that of Stable Diffusion.
const SIDE: i64 = 64;

/// The components of a `model_index.json`.
struct Index<'a> {
    path: &'a Path,
    entries: &'a Map<String, Value>,
}

impl Index<'_> {
    /// The class of the component `name`; none where it is absent or null.
    fn class(&self, name: &str) -> Option<&str> {
        self.entries.get(name)?.as_array()?.get(1)?.as_str()
    }

    /// The first of `names` that is present.
    fn part<'b>(&self, names: [&'b str; 2]) -> Option<&'b str> {
        names.into_iter().find(|name| self.class(name).is_some())
    }

    fn refuse(&self, why: impl Into<String>) -> Error {
        Error::config(self.path, why.into())
    }

    /// Returns the ignored components, and refuses those that latent diffusion models and Stable Diffusion 1 do not
    /// have.
    fn ignored(&self) -> Result<Vec<String>> {
        let known = ["vae", "vqvae", "unet", "text_encoder", "bert", "tokenizer", "scheduler"];
        let mut ignored = Vec::new();
        for name in self.entries.keys().map(String::as_str) {
            let Some(class) = self.class(name).filter(|_| !known.contains(&name) && !SAFETY.contains(&name))
            else {
                continue;
            };
            if !IGNORED.contains(&name) {
                return Err(self.refuse(format!(
                    "`{name}`: expected no such component in a latent diffusion model, got {class}"
                )));
            }
            ignored.push(name.to_owned());
        }
        Ok(ignored)
    }
}

/// Reads the folder `root`. Without `ema`, `non_ema` weights are used where a component has them.
pub(crate) fn read(root: &Path, ema: bool) -> Result<ModelSource> {
    let path = root.join("model_index.json");
    let json = read_json(&path)?;
    let entries = json.as_object().ok_or_else(|| Error::config(&path, "expected a JSON object"))?;
    let index = Index { path: &path, entries };
    let mut notes: Vec<String> = Vec::new();
    let ignored = index.ignored()?;
    if !ignored.is_empty() {
        notes.push(format!("{}: ignored {}", root.display(), ignored.join(", ")));
    }
    let first =
        index.part(["vae", "vqvae"]).ok_or_else(|| index.refuse("expected `vae` or `vqvae`, got neither"))?;
    if index.class("unet").is_none() {
        return Err(index.refuse("`unet`: expected a component, got none"));
    }
    let text = index.part(["text_encoder", "bert"]);
    let first = Component::read(&root.join(first), ema, ldm_autoencoder::from_diffusers, |(config, _)| {
        ldm_autoencoder::diffusers_layout(config)
    })?;
    let unet =
        Component::read(&root.join("unet"), ema, ldm_unet::from_diffusers, ldm_unet::diffusers_layout)?;
    let conditioner = text.map(|name| {
        let read = ldm_conditioning::from_diffusers;
        Component::read(&root.join(name), ema, read, ldm_conditioning::diffusers_layout)
    });
    let conditioner = conditioner.transpose()?;
    let scheduler = root.join("scheduler/scheduler_config.json");
    let scheduler = DiffusersScheduler::open(&scheduler)?;

    let text_variant = conditioner.as_ref().and_then(|part| part.variant.as_deref());
    let variants: BTreeSet<&str> =
        [first.variant.as_deref(), unet.variant.as_deref(), text_variant].into_iter().flatten().collect();
    if !variants.is_empty() {
        let variants: Vec<&str> = variants.into_iter().collect();
        notes.push(format!("{}: loaded the variant {}", root.display(), variants.join(", ")));
    }
    let pipeline = entries.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    let (first_stage, mut scale_factor) = first.config;
    if pipeline == SUPER_RESOLUTION {
        scale_factor = 1.;
    }
    let measured = first.checkpoint.metadata().get(MEASURED).is_some_and(|word| word == "true");
    let conditioning = conditioning(
        &root.join("unet/config.json"),
        pipeline,
        &unet.config,
        conditioner.as_ref().map(|part| &part.config),
    )?;
    let config = assemble(&unet.config, &first_stage, conditioning, scale_factor, &scheduler)
        .map_err(|error| Error::config(&path, error.to_string()))?;
    let mut parts =
        vec![("model.diffusion_model.", unet.checkpoint), ("first_stage_model.", first.checkpoint)];
    parts.extend(conditioner.map(|part| ("cond_stage_model.", part.checkpoint)));
    Ok(ModelSource {
        config: ModelConfig::LatentDiffusion(Box::new(config)),
        checkpoint: Checkpoint::join(root, parts)?,
        folder: Some(root.to_path_buf()),
        scheduler: Some(scheduler),
        measured,
        notes,
    })
}

/// The conditioner, and the conditioning key.
fn conditioning(
    path: &Path,
    pipeline: &str,
    unet: &UNetConfig,
    conditioner: Option<&ConditionerConfig>,
) -> Result<(ConditionerConfig, Option<&'static str>)> {
    let joined = unet.in_channels - unet.out_channels;
    let refuse = |why: String| Err(Error::config(path, why));
    match (conditioner, unet.use_spatial_transformer) {
        (Some(conditioner), true) if joined == 0 => Ok((conditioner.clone(), Some("crossattn"))),
        // The mask and the masked image.
        (Some(conditioner), true) if joined == 1 + unet.out_channels => {
            Ok((conditioner.clone(), Some("hybrid")))
        }
        (Some(_), true) => refuse(format!(
            "`in_channels`: expected {} or, for inpainting, {}, got {}",
            unet.out_channels,
            2 * unet.out_channels + 1,
            unet.in_channels
        )),
        (Some(_), false) => {
            refuse("`_class_name`: expected UNet2DConditionModel with a text encoder, got UNet2DModel".into())
        }
        (None, true) => {
            refuse("expected `text_encoder` or `bert` for the U-Net's cross-attention, got neither".into())
        }
        (None, false) if joined == 0 => Ok((ConditionerConfig::Unconditional, None)),
        (None, false) if pipeline == SUPER_RESOLUTION && joined > 0 => {
            Ok((ConditionerConfig::Identity, Some("concat")))
        }
        (None, false) => refuse(format!(
            "`in_channels`: expected {} in {pipeline}, got {}",
            unet.out_channels, unet.in_channels
        )),
    }
}

/// The config of the diffusion model.
fn assemble(
    unet: &UNetConfig,
    first_stage: &FirstStageConfig,
    (conditioner, conditioning_key): (ConditionerConfig, Option<&str>),
    scale_factor: f64,
    scheduler: &DiffusersScheduler,
) -> Result<LatentDiffusionConfig> {
    let side = match unet.image_size {
        None => SIDE,
        Some([height, width]) if height == width => height,
        Some(size) => {
            return Err(Error::invalid(format!("`unet`: sample_size: expected a square, got {size:?}")));
        }
    };
    let schedule = &scheduler.schedule;
    LatentDiffusionConfig::of(json!({
        "unet_config": { "target": "unet", "params": unet },
        "first_stage_config": first_stage,
        "cond_stage_config": conditioner,
        "conditioning_key": conditioning_key,
        "image_size": side,
        "channels": unet.out_channels,
        "scale_factor": scale_factor,
        "timesteps": schedule.timesteps,
        "beta_schedule": schedule.beta_schedule,
        "linear_start": schedule.linear_start,
        "linear_end": schedule.linear_end,
        "given_betas": schedule.given_betas,
        "zero_terminal_snr": schedule.zero_terminal_snr,
        "parameterization": scheduler.parameterization,
        "use_ema": false,
    }))
}
