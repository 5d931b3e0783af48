//! A diffusers folder: `model_index.json`, and a folder for each part.

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

/// Parts that add nothing to an image.
const PASSED_OVER: [&str; 3] = ["safety_checker", "feature_extractor", "image_encoder"];

/// The pipeline that joins a small image to the latent, and neither scales latents nor says so.
pub(crate) const SUPER_RESOLUTION: &str = "LDMSuperResolutionPipeline";

/// Metadata of the first stage's file: the scale was measured, so our file and CompVis' hold it as a tensor.
pub(crate) const MEASURED: &str = "scale_by_std";

/// Side of the latents where a U-Net's config names none: that of Stable Diffusion, and diffusers' own default.
const SIDE: i64 = 64;

/// The parts of a `model_index.json`.
struct Index<'a> {
    path: &'a Path,
    entries: &'a Map<String, Value>,
}

impl Index<'_> {
    /// The class of the part `name`; none where it is absent or null.
    fn class(&self, name: &str) -> Option<&str> {
        self.entries.get(name)?.as_array()?.get(1)?.as_str()
    }

    /// The first of `names` that is there.
    fn part<'b>(&self, names: [&'b str; 2]) -> Option<&'b str> {
        names.into_iter().find(|name| self.class(name).is_some())
    }

    fn refuse(&self, why: impl Into<String>) -> Error {
        Error::config(self.path, why.into())
    }

    /// Refuses parts that no latent diffusion model of the first generation has, and names those passed over.
    fn passed_over(&self) -> Result<Vec<String>> {
        let known = ["vae", "vqvae", "unet", "text_encoder", "bert", "tokenizer", "scheduler"];
        let mut passed = Vec::new();
        for name in self.entries.keys().map(String::as_str) {
            let Some(class) = self.class(name).filter(|_| !known.contains(&name)) else { continue };
            if !PASSED_OVER.contains(&name) {
                return Err(self.refuse(format!(
                    "`{name}`: a {class}, which no latent diffusion model of the first generation has"
                )));
            }
            passed.push(name.to_owned());
        }
        Ok(passed)
    }
}

/// Reads the folder `root`. With `ema` false, weights as trained are taken where a part has them (`non_ema`).
pub(crate) fn read(root: &Path, ema: bool) -> Result<ModelSource> {
    let path = root.join("model_index.json");
    let json = read_json(&path)?;
    let entries = json.as_object().ok_or_else(|| Error::config(&path, "expected a JSON object"))?;
    let index = Index { path: &path, entries };
    let mut notes: Vec<String> = Vec::new();
    let passed = index.passed_over()?;
    if !passed.is_empty() {
        notes.push(format!("{}: {} passed over", root.display(), passed.join(", ")));
    }
    let first = index.part(["vae", "vqvae"]).ok_or_else(|| index.refuse("`vae` or `vqvae` is missing"))?;
    if index.class("unet").is_none() {
        return Err(index.refuse("`unet` is missing"));
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
        notes.push(format!("{}: the variant {} is taken", root.display(), variants.join(", ")));
    }
    let pipeline = entries.get("_class_name").and_then(Value::as_str).unwrap_or_default();
    let (first_stage, mut scale_factor) = first.config;
    if pipeline == SUPER_RESOLUTION {
        scale_factor = 1.;
    }
    let measured = first.checkpoint.metadata().get(MEASURED).is_some_and(|word| word == "true");
    let told = told(
        &root.join("unet/config.json"),
        pipeline,
        &unet.config,
        conditioner.as_ref().map(|part| &part.config),
    )?;
    let config = assemble(&unet.config, &first_stage, told, scale_factor, &scheduler)
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

/// The conditioner, and where its words go.
fn told(
    path: &Path,
    pipeline: &str,
    unet: &UNetConfig,
    conditioner: Option<&ConditionerConfig>,
) -> Result<(ConditionerConfig, Option<&'static str>)> {
    let joined = unet.in_channels - unet.out_channels;
    let refuse = |why: String| Err(Error::config(path, why));
    match (conditioner, unet.use_spatial_transformer) {
        (Some(conditioner), true) if joined == 0 => Ok((conditioner.clone(), Some("crossattn"))),
        // The mask, and the image with a hole.
        (Some(conditioner), true) if joined == 1 + unet.out_channels => {
            Ok((conditioner.clone(), Some("hybrid")))
        }
        (Some(_), true) => refuse(format!(
            "`in_channels`: expected {} or, to fill images in, {}, got: {}",
            unet.out_channels,
            2 * unet.out_channels + 1,
            unet.in_channels
        )),
        (Some(_), false) => refuse(
            "`_class_name`: expected UNet2DConditionModel beside a text encoder, got: UNet2DModel".into(),
        ),
        (None, true) => refuse("the U-Net attends to tokens, and `text_encoder` or `bert` is missing".into()),
        (None, false) if joined == 0 => Ok((ConditionerConfig::Unconditional, None)),
        (None, false) if pipeline == SUPER_RESOLUTION && joined > 0 => {
            Ok((ConditionerConfig::Identity, Some("concat")))
        }
        (None, false) => refuse(format!(
            "`in_channels`: expected {} of {pipeline}, got: {}",
            unet.out_channels, unet.in_channels
        )),
    }
}

/// The config of the whole.
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
            return Err(Error::invalid(format!("`unet`: sample_size: expected a square, got: {size:?}")));
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
