//! Parts of a diffusers folder: its `config.json`, and weights under diffusers' names.

use std::path::{Path, PathBuf};

use ldm_checkpoint::{Checkpoint, Shapes, StateDictMapping};
use ldm_core::nn::skip_init;
use ldm_core::{Error, Result};
use ldm_pipelines::{FirstStageModel, weights_file};
use ldm_unet::{ControlNetConfig, Plan, control_net_diffusers_layout};
use serde_json::{Value, json};
use tch::Device;

use super::describe;
use super::detect::infer_config;
use super::fit::{Misfit, compare};
use super::verdict::Verdict;

/// Returns the weights of the parts of a diffusers folder, by name.
pub(super) fn parts(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.read_dir().map_err(Error::io(folder))? {
        let part = entry.map_err(Error::io(folder))?.path();
        if part.join("config.json").is_file() {
            found.extend(weights_file(&part)); // a part may have no weights
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the verdict by the `config.json` next to the weights; none where there is none.
pub(super) fn verdict(weights: &Path, checkpoint: &Checkpoint) -> Result<Option<Verdict>> {
    let path = weights.with_file_name("config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let config: Value = ldm_core::text::read_json(&path)?;
    let class =
        config.get("_class_name").or_else(|| config.pointer("/architectures/0")).and_then(Value::as_str);
    let read = match class {
        Some("AutoencoderKL" | "VQModel") => first_stage(&config),
        Some("UNet2DModel" | "UNet2DConditionModel") => unet(&config),
        Some("ControlNetModel") => control_net(&config),
        other => {
            // A transformers model, or a file next to an unrelated config.json.
            let inferred = infer_config(&checkpoint.shapes());
            let Some(class) = other.filter(|_| inferred.fits.is_none()) else { return Ok(Some(inferred)) };
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

/// The architecture, its config in our keys, the mapping of names, and names with shapes.
type ComponentConfig = (String, Value, StateDictMapping, Shapes);

fn first_stage(json: &Value) -> Result<ComponentConfig> {
    let (config, scale_factor) = ldm_autoencoder::from_diffusers(json)?;
    let layout = ldm_autoencoder::diffusers_layout(&config)?;
    let model = skip_init(|| FirstStageModel::new(&config, Device::Cpu))?;
    let shapes = model.vs.variables().into_iter().map(|(name, variable)| (name, variable.size())).collect();
    let derived = json!({"first_stage_config": config, "scale_factor": scale_factor});
    Ok((describe::first_stage(&config), derived, layout, shapes))
}

fn unet(json: &Value) -> Result<ComponentConfig> {
    let config = ldm_unet::from_diffusers(json)?;
    let layout = ldm_unet::diffusers_layout(&config)?;
    let shapes = Plan::new(&config)?.parameters().into_iter().collect();
    let derived = json!({"unet_config": {"target": "unet", "params": config}});
    Ok((describe::unet(&config), derived, layout, shapes))
}

fn control_net(json: &Value) -> Result<ComponentConfig> {
    let config = ControlNetConfig::from_diffusers(json)?;
    let layout = control_net_diffusers_layout(&config)?;
    let shapes = Plan::control_net(&config)?.parameters().into_iter().collect();
    let derived = json!({
        "unet_config": {"target": "unet", "params": config.unet},
        "hint_channels": config.hint_channels, "hint_widths": config.hint_widths, "bgr": config.bgr,
    });
    Ok((describe::control_net(&config), derived, layout, shapes))
}
