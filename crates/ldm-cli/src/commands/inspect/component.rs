//! A part of a diffusers folder: its `config.json`, and weights under diffusers' names.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ldm_checkpoint::{Checkpoint, Shapes, StateDictMapping};
use ldm_core::Result;
use ldm_core::nn::skip_init;
use ldm_pipelines::{FirstStageModel, weights_file};
use ldm_unet::Plan;
use serde_json::{Value, json};
use tch::Device;

use super::Verdict;
use super::describe;
use super::detect::infer_config;
use super::fit::{Misfit, compare};

/// The weights of the parts of a diffusers folder, by name.
pub(super) fn parts(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || folder.display().to_string();
    let mut found = Vec::new();
    for entry in folder.read_dir().with_context(context)? {
        let part = entry.with_context(context)?.path();
        if part.join("config.json").is_file() {
            found.extend(weights_file(&part)); // a part without weights has none to look at
        }
    }
    found.sort();
    Ok(found)
}

/// Whether the weights are what the `config.json` beside them says; nothing where there is none.
pub(super) fn verdict(weights: &Path, checkpoint: &Checkpoint) -> anyhow::Result<Option<Verdict>> {
    let path = weights.with_file_name("config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let context = || path.display().to_string();
    let config: Value =
        serde_json::from_slice(&std::fs::read(&path).with_context(context)?).with_context(context)?;
    let class =
        config.get("_class_name").or_else(|| config.pointer("/architectures/0")).and_then(Value::as_str);
    let read = match class {
        Some("AutoencoderKL" | "VQModel") => first_stage(&config),
        Some("UNet2DModel" | "UNet2DConditionModel") => unet(&config),
        other => {
            // A transformers model, or a file that only happens to lie beside someone's config.json.
            let told = infer_config(&checkpoint.shapes());
            let Some(class) = other.filter(|_| told.fits.is_none()) else { return Ok(Some(told)) };
            return Ok(Some(Verdict::only(class)));
        }
    };
    let class = class.expect("one of the above");
    Ok(Some(match read {
        Ok((architecture, derived, layout, expected)) => {
            let found = checkpoint.clone().into_native(&layout).shapes();
            Verdict {
                architecture: format!("{architecture} (diffusers' {class})"),
                derived: Some(derived),
                fits: Some(compare(&expected, &found)),
                notes: Vec::new(),
            }
        }
        Err(error) => Verdict { fits: Some(Err(Misfit::from(error))), ..Verdict::only(class) },
    }))
}

/// What it is, its config in our words, its layout, and its names and shapes.
type Read = (String, Value, StateDictMapping, Shapes);

fn first_stage(json: &Value) -> Result<Read> {
    let (config, scale_factor) = ldm_autoencoder::from_diffusers(json)?;
    let layout = ldm_autoencoder::diffusers_layout(&config)?;
    let model = skip_init(|| FirstStageModel::new(&config, Device::Cpu))?;
    let shapes = model.vs.variables().into_iter().map(|(name, variable)| (name, variable.size())).collect();
    let derived = json!({"first_stage_config": config, "scale_factor": scale_factor});
    Ok((describe::first_stage(&config), derived, layout, shapes))
}

fn unet(json: &Value) -> Result<Read> {
    let config = ldm_unet::from_diffusers(json)?;
    let layout = ldm_unet::diffusers_layout(&config)?;
    let shapes = Plan::new(&config)?.parameters().into_iter().collect();
    let derived = json!({"unet_config": {"target": "unet", "params": config}});
    Ok((describe::unet(&config), derived, layout, shapes))
}
