//! CompVis' `DDPM`: diffusion in pixels.

use std::path::Path;

use ldm_core::config::Value;
use ldm_core::{Error, Result};
use serde_json::json;

/// Names of the class in a config.
const TARGETS: [&str; 2] = ["ddpm", "ldm.models.diffusion.ddpm.DDPM"];

/// The arguments of `LatentDiffusion` that `DDPM` does not take (CompVis `ddpm.py:424`).
const LATENT_KEYS: [&str; 10] = [
    "first_stage_config",
    "cond_stage_config",
    "num_timesteps_cond",
    "cond_stage_key",
    "cond_stage_trainable",
    "concat_mode",
    "cond_stage_forward",
    "conditioning_key",
    "scale_factor",
    "scale_by_std",
];

/// Writes `target: ldm.models.diffusion.ddpm.DDPM` as the latent diffusion that it equals: with the identity as its first
/// stage, without a condition, and with DDPM's default `clip_denoised: true`. Returns true when there was one.
///
/// CompVis `ddpm.py:44` `DDPM`.
///
/// # Errors
/// [`Error::Config`] for keys that only `LatentDiffusion` has.
pub(crate) fn resolve_pixel_diffusion(tree: &mut Value, file: &Path) -> Result<bool> {
    let Some(model) = tree.get_mut("model") else { return Ok(false) };
    let target = model.get("target").and_then(Value::as_str);
    if !target.is_some_and(|target| TARGETS.contains(&target)) {
        return Ok(false);
    }
    let Some(params) = model.get_mut("params").and_then(Value::as_mapping_mut) else { return Ok(false) };
    if let Some(key) =
        LATENT_KEYS.into_iter().find(|key| params.get(*key).is_some_and(|value| !value.is_null()))
    {
        return Err(Error::config(
            file,
            format!(
                "model.params.{key}: expected a key of DDPM, got one of LatentDiffusion; try target: latent_diffusion"
            ),
        ));
    }
    let channels = params.get("channels").and_then(Value::as_i64).unwrap_or(3);
    let identity = json!({"target": "identity", "params": {"channels": channels}});
    let mut set = |key: &str, value: serde_json::Value| {
        params.insert(key.into(), serde_yaml::to_value(value).expect("a valid YAML tree"));
    };
    set("first_stage_config", identity);
    set("cond_stage_config", json!("__is_unconditional__"));
    params.entry("clip_denoised".into()).or_insert(Value::Bool(true));
    if let Some(model) = model.as_mapping_mut() {
        model.insert("target".into(), "latent_diffusion".into());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConditioningKind, ModelConfig, ModelFile};

    const DDPM: &str = "model: {target: ldm.models.diffusion.ddpm.DDPM, params: {image_size: 8, channels: 1, unet_config: \
        {target: unet, params: {image_size: 8, in_channels: 1, out_channels: 1, model_channels: 32, num_res_blocks: 1, \
        attention_resolutions: [], channel_mult: [1]}}}}";

    fn read(overrides: &[&str]) -> Result<crate::LatentDiffusionConfig> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        match ModelFile::parse(DDPM, "ddpm.yaml", &overrides)?.model {
            ModelConfig::LatentDiffusion(config) => Ok(*config),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_an_unconditional_diffusion_of_clipped_pixels() {
        let config = read(&[]).unwrap();
        assert_eq!(ConditioningKind::of(&config), ConditioningKind::Unconditional);
        assert_eq!(config.first_stage_config.input().channels(), 1);
        assert_eq!(config.clip_denoised, Some(true));
        config.check().unwrap();
        assert_eq!(read(&["model.params.clip_denoised=false"]).unwrap().clip_denoised, Some(false));
    }

    #[test]
    fn keys_of_latent_diffusion_are_refused() {
        let error = read(&["model.params.scale_factor=0.5"]).unwrap_err().to_string();
        assert!(error.contains("model.params.scale_factor: expected a key of DDPM, got"), "{error}");
    }
}
