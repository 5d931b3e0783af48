//! Model configs in CompVis' format, read strictly.

use std::path::{Path, PathBuf};

use ldm_autoencoder::{FirstStageConfig, KlConfig, VqConfig};
use ldm_core::config;
use ldm_core::{Error, Result};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::convert::tree;
use crate::first_stage_run::write_out;
use crate::{ClassifierConfig, LatentDiffusionConfig};

/// `model` of a config file. Unknown fields next to `target` and `params` are refused by [`ModelFile::parse`], which
/// reads them a second time: a tagged enum would refuse `base_learning_rate` too.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(tag = "target", content = "params")]
pub enum ModelConfig {
    /// A diffusion model on the latents of a first stage.
    #[serde(
        rename = "latent_diffusion",
        alias = "ldm.models.diffusion.ddpm.LatentDiffusion",
        alias = "ldm.models.diffusion.ddpm.Layout2ImgDiffusion",
        alias = "ldm.models.diffusion.ddpm.LatentInpaintDiffusion"
    )]
    LatentDiffusion(Box<LatentDiffusionConfig>),
    /// A KL first stage.
    #[serde(rename = "kl", alias = "ldm.models.autoencoder.AutoencoderKL")]
    Kl(KlConfig),
    /// A VQ first stage.
    #[serde(
        rename = "vq",
        alias = "ldm.models.autoencoder.VQModel",
        alias = "ldm.models.autoencoder.VQModelInterface"
    )]
    Vq(VqConfig),
    /// A classifier of a diffusion model's noisy latents.
    #[serde(
        rename = "noisy_latent_classifier",
        alias = "ldm.models.diffusion.classifier.NoisyLatentImageClassifier"
    )]
    Classifier(Box<ClassifierConfig>),
}

impl ModelConfig {
    /// The config of the first stage, where the model is one.
    pub fn first_stage(&self) -> Option<FirstStageConfig> {
        match self {
            Self::Kl(config) => Some(FirstStageConfig::Kl(config.clone())),
            Self::Vq(config) => Some(FirstStageConfig::Vq(config.clone())),
            Self::LatentDiffusion(_) | Self::Classifier(_) => None,
        }
    }

    /// The model of a first stage alone; none for the identity, which has no weights.
    pub fn of_first_stage(config: FirstStageConfig) -> Option<Self> {
        match config {
            FirstStageConfig::Kl(config) => Some(Self::Kl(config)),
            FirstStageConfig::Vq(config) => Some(Self::Vq(config)),
            FirstStageConfig::Identity(_) => None,
        }
    }

    /// The config with `overrides` as `a.b.c=value`; errors name `path`.
    pub(crate) fn with_overrides(self, path: &Path, overrides: &[String]) -> Result<Self> {
        if overrides.is_empty() {
            return Ok(self);
        }
        let text = config::to_text(&tree(&self).into());
        Ok(ModelFile::parse(&text, path, overrides)?.model)
    }

    /// All paths in the config.
    fn paths(&mut self) -> Vec<&mut PathBuf> {
        fn kl(config: &mut KlConfig) -> [&mut Option<PathBuf>; 1] {
            [&mut config.ckpt_path]
        }
        fn vq(config: &mut VqConfig) -> [&mut Option<PathBuf>; 2] {
            [&mut config.ckpt_path, &mut config.remap]
        }
        let mut paths = Vec::new();
        match self {
            Self::Kl(config) => paths.extend(kl(config)),
            Self::Vq(config) => paths.extend(vq(config)),
            Self::Classifier(config) => paths.extend(config.paths()),
            Self::LatentDiffusion(config) => {
                paths.push(&mut config.ckpt_path);
                match &mut config.first_stage_config {
                    FirstStageConfig::Kl(config) => paths.extend(kl(config)),
                    FirstStageConfig::Vq(config) => paths.extend(vq(config)),
                    FirstStageConfig::Identity(_) => {}
                }
            }
        }
        paths.into_iter().flatten().collect()
    }
}

/// The fields next to `target` and `params`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Siblings {
    #[serde(default)]
    base_learning_rate: Option<f64>,
    target: String,
    #[serde(rename = "params", default)]
    _params: IgnoredAny,
}

/// The model section of a config file; `data`, `train` and `lightning` are for the trainer.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// The model described.
    pub model: ModelConfig,
    /// CompVis' `base_learning_rate`, where given.
    pub base_learning_rate: Option<f64>,
    /// Messages about ignored sections.
    pub notes: Vec<String>,
}

impl ModelFile {
    /// Reads a config file, with `overrides` as `a.b.c=value`.
    ///
    /// The paths in it (`ckpt_path`, `remap`, `diffusion_path`) are looked up next to the file first, then in the
    /// current folder. A first stage named by its run is read from there: see
    /// [`resolve_first_stage`](crate::resolve_first_stage).
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Config`] with the key, the expected value, and the line.
    pub fn read(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        let path = path.as_ref();
        let text = ldm_core::text::read(path)?;
        Self::parse(&text, path, overrides)
    }

    /// [`ModelFile::read`] from text; errors name `path`, and relative paths are looked up next to it.
    pub fn parse(text: &str, path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Tree<M> {
            model: M,
            #[serde(default)]
            data: Option<IgnoredAny>,
            #[serde(default)]
            train: Option<IgnoredAny>,
            #[serde(default)]
            lightning: Option<IgnoredAny>,
        }
        let path = path.as_ref();
        if let Some(written) = write_out(text, path, overrides)? {
            // Line numbers of errors refer to the text written out.
            return Self::parse(&written, path, &[]).map_err(|error| match error {
                Error::Config { message, .. } => {
                    Error::config(path, format!("with the first stage written out: {message}"))
                }
                other => other,
            });
        }
        let siblings: Tree<Siblings> = config::parse(text, path, overrides)?;
        let tree: Tree<ModelConfig> = config::parse(text, path, overrides)?;
        let mut model = tree.model;
        if let ModelConfig::LatentDiffusion(config) = &model {
            config
                .check_target(&siblings.model.target)
                .map_err(|error| Error::config(path, error.to_string()))?;
        }
        for given in model.paths() {
            let neighbor = path.with_file_name(&given);
            if neighbor.exists() {
                *given = neighbor;
            }
        }
        // With `train` the file is one of ours, and its data are read by the trainer.
        let data = tree.data.is_some() && tree.train.is_none();
        let ignored: Vec<&str> = [("data", data), ("lightning", tree.lightning.is_some())]
            .into_iter()
            .filter_map(|(section, present)| present.then_some(section))
            .collect();
        let notes = if ignored.is_empty() {
            Vec::new()
        } else {
            let sections = ignored.join("` and `");
            vec![format!("{}: ignored `{sections}`, which only CompVis' trainer reads", path.display())]
        };
        Ok(Self { model, base_learning_rate: siblings.model.base_learning_rate, notes })
    }
}
