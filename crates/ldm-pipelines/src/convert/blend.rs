//! Merging of models of the same architecture: weighted sum, and add difference.

use std::path::{Path, PathBuf};

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use ldm_schedulers::NoiseSchedule;
use serde_yaml::Value;
use tch::{Kind, Tensor};

use super::tree;
use super::weights::{first_stage_weights, is_floating, measured};
use crate::source::FindOptions;
use crate::{LatentDiffusion, LatentDiffusionConfig, ModelConfig, ModelSource};

/// Models B, and C, to merge with the source A, weight by weight: `A·(1 − w) + B·w`, or with C `A + w·(B − C)`. The names
/// are those of AUTOMATIC1111's checkpoint merger.
#[derive(Debug, Clone)]
pub struct CheckpointMerge {
    /// B: a path as of [`ModelSource::find`]. A file without a config is of the source's.
    pub with: PathBuf,
    /// `w`.
    pub weight: f64,
    /// C.
    pub minus: Option<PathBuf>,
}

/// The checked weights of the models to merge.
pub(super) struct Blend {
    with: Checkpoint,
    weight: f64,
    minus: Option<Checkpoint>,
}

impl Blend {
    /// Checks the models against the source, whose latents have `scale_factor`. EMA weights are taken where they exist
    /// with `ema`.
    pub(super) fn of(
        merge: &CheckpointMerge,
        source: &ModelSource,
        ema: bool,
        scale_factor: f64,
    ) -> Result<Self> {
        let read = |path: &Path| weights_like(path, source, ema, scale_factor);
        let minus = merge.minus.as_deref().map(read).transpose()?;
        Ok(Self { with: read(&merge.with)?, weight: merge.weight, minus })
    }

    /// Returns the merged weight `name`, in f32, or f64 where it is that; `a` itself where it is not of floating point, and
    /// where B, or B − C, changes nothing.
    pub(super) fn apply(&self, name: &str, a: &Tensor) -> Result<Tensor> {
        if !is_floating(a.kind()) || self.weight == 0. {
            return Ok(a.shallow_clone());
        }
        let kind = if a.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let (a, b) = (a.to_kind(kind), self.with.tensor(name)?.to_kind(kind));
        Ok(match &self.minus {
            None if self.weight == 1. => b,
            None => a * (1. - self.weight) + b * self.weight,
            Some(minus) => {
                let difference = b - minus.tensor(name)?.to_kind(kind);
                // Zeros keep their sign where nothing is added.
                a.where_self(&difference.eq(0.), &(&a + &difference * self.weight))
            }
        })
    }
}

/// Opens a model and checks that it is of the same kind as `source`; returns its weights.
fn weights_like(path: &Path, source: &ModelSource, ema: bool, scale_factor: f64) -> Result<Checkpoint> {
    let how = FindOptions { ema, like: Some(&source.config), ..FindOptions::default() };
    let found = ModelSource::locate(path, how)?;
    match (&source.config, &found.config) {
        (ModelConfig::LatentDiffusion(config), ModelConfig::LatentDiffusion(other)) => {
            let refuse = |key: &str, expected: String, got: String| {
                Error::format(path, format!("{key}: expected {expected}, that of the first model, got {got}"))
            };
            if let Some((key, expected, got)) = difference(&source.config, &found.config) {
                return Err(refuse(key, expected, got));
            }
            if !same_schedule(config, other)? {
                return Err(refuse("noise schedule", "the same".into(), "another".into()));
            }
            let other_scale =
                if other.scale_by_std { measured(&found.checkpoint)? } else { other.scale_factor };
            if (other_scale / scale_factor - 1.).abs() > 1e-3 {
                return Err(refuse("scale_factor", scale_factor.to_string(), other_scale.to_string()));
            }
            Ok(LatentDiffusion::check(config, found.checkpoint, ema)?.0)
        }
        (ModelConfig::Kl(_), ModelConfig::Kl(_)) | (ModelConfig::Vq(_), ModelConfig::Vq(_)) => {
            first_stage_weights(&source.config, found.checkpoint)
        }
        (expected, got) => {
            let [expected, got] = [expected, got].map(kind);
            Err(Error::format(path, format!("expected {expected}, as the first model, got {got}")))
        }
    }
}

fn kind(config: &ModelConfig) -> &'static str {
    match config {
        ModelConfig::LatentDiffusion(_) => "a diffusion model",
        ModelConfig::Kl(_) => "a KL first stage",
        ModelConfig::Vq(_) => "a VQ first stage",
        ModelConfig::Classifier(_) => "a classifier",
    }
}

/// Keys that change the meaning of weights and not their shapes.
const MEANING: [&str; 5] = [
    "parameterization",
    "conditioning_key",
    "unet_config.params.num_heads",
    "unet_config.params.num_head_channels",
    "unet_config.params.use_new_attention_order",
];

/// The first key of [`MEANING`] that differs, and both values.
fn difference(config: &ModelConfig, other: &ModelConfig) -> Option<(&'static str, String, String)> {
    let [config, other] = [config, other].map(|config| Value::from(tree(config)));
    let at = |tree: &Value, key: &str| {
        let params = &tree["model"]["params"];
        let value = key.split('.').fold(params, |value, part| &value[part]);
        serde_yaml::to_string(value).unwrap_or_default().trim().to_owned()
    };
    let values = MEANING.iter().map(|key| (*key, at(&config, key), at(&other, key)));
    values.into_iter().find(|(_, value, other)| value != other)
}

/// Returns true where the noise levels are the same, to a hundredth.
fn same_schedule(config: &LatentDiffusionConfig, other: &LatentDiffusionConfig) -> Result<bool> {
    let betas = |config: &LatentDiffusionConfig| -> Result<Option<Vec<f32>>> {
        let buffers = NoiseSchedule::new(&config.schedule())?.buffers();
        Ok(buffers.into_iter().find(|(name, _)| *name == "betas").map(|(_, betas)| betas))
    };
    let (betas, others) = (betas(config)?, betas(other)?);
    let (Some(betas), Some(others)) = (betas, others) else { return Ok(true) };
    Ok(betas.len() == others.len()
        && betas.iter().zip(&others).all(|(beta, other)| (beta - other).abs() <= 0.01 * beta.abs()))
}
