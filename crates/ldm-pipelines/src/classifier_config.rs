//! The config of a classifier of noisy latents: CompVis' fields and their defaults.

use std::path::{Path, PathBuf};

use ldm_core::config::Value;
use ldm_core::{Error, Result};
use ldm_unet::{EncoderUNetConfig, Pool};
use serde::{Deserialize, Serialize};

use crate::{LatentDiffusionConfig, ModelConfig, ModelSource};

/// The fields of CompVis' `NoisyLatentImageClassifier` (`classifier.py:28`), with their defaults, and
/// `classifier_config`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The diffusion model whose noisy latents are classified: a path as of `--model`, or a folder of CompVis' trainer,
    /// with the newest of its `configs/*-project.yaml`. Required in training.
    #[serde(default)]
    pub diffusion_path: Option<PathBuf>,
    /// The number of classes.
    pub num_classes: i64,
    /// Another classifier, the initial weights of a new run.
    #[serde(default)]
    pub ckpt_path: Option<PathBuf>,
    /// Pooling of the feature map; [`Pool::Attention`] where absent.
    #[serde(default)]
    pub pool: Option<Pool>,
    /// The label to classify; `class_label` is the only value.
    #[serde(default)]
    pub label_key: Option<String>,
    /// The weights of the diffusion model, where they are not in its folder.
    #[serde(default)]
    pub diffusion_ckpt_path: Option<PathBuf>,
    /// CompVis' learning-rate schedule; refused in training, which has `train.schedule`.
    #[serde(default)]
    pub scheduler_config: Option<Value>,
    /// AdamW's decoupled weight decay; 0.01 where absent.
    #[serde(default)]
    pub weight_decay: Option<f64>,
    /// The number of noise levels of an image in a preview.
    #[serde(default = "ten")]
    pub log_steps: usize,
    /// The metric by which CompVis' trainer selects its best checkpoints; `train.keep_best` here.
    #[serde(default)]
    pub monitor: Option<String>,
    /// The network, if not the encoder of the diffusion model's U-Net with a pool; CompVis has no such key.
    /// Exported classifiers have it, and so do not depend on the diffusion model.
    #[serde(default)]
    pub classifier_config: Option<EncoderUNetConfig>,
}

fn ten() -> usize {
    10
}

impl ClassifierConfig {
    /// Checks the fields, and refuses by name those of CompVis that are not supported.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field and its value.
    pub fn check(&self) -> Result<()> {
        let refuse = |field: &str, why: String| Err(Error::invalid(format!("{field}: {why}")));
        match self.label_key.as_deref() {
            None | Some("class_label") => {}
            Some("segmentation") => {
                return refuse(
                    "label_key",
                    "expected class_label, got segmentation, which is not supported".into(),
                );
            }
            Some(other) => return refuse("label_key", format!("expected class_label, got {other}")),
        }
        if self.num_classes < 2 {
            return refuse("num_classes", format!("expected at least 2, got {}", self.num_classes));
        }
        if self.weight_decay.is_some_and(|decay| !(decay.is_finite() && decay >= 0.)) {
            let got = self.weight_decay.unwrap_or_default();
            return refuse("weight_decay", format!("expected at least 0, got {got}"));
        }
        if self.log_steps == 0 {
            return refuse("log_steps", "expected at least 1, got 0".into());
        }
        let Some(network) = &self.classifier_config else { return Ok(()) };
        if network.out_channels != self.num_classes {
            let (got, classes) = (network.out_channels, self.num_classes);
            return refuse(
                "classifier_config.out_channels",
                format!("expected num_classes, {classes}, got {got}"),
            );
        }
        if self.pool.is_some_and(|pool| pool != network.pool) {
            return refuse(
                "pool",
                "expected that of classifier_config, got another; try leaving it out".into(),
            );
        }
        Ok(())
    }

    /// The config of the network: `classifier_config`, else the encoder of the diffusion model's U-Net and a pool.
    /// CompVis `classifier.py:95` `load_classifier`.
    ///
    /// # Errors
    /// As [`ClassifierConfig::check`] and [`ClassifierConfig::diffusion`].
    pub fn network(&self) -> Result<EncoderUNetConfig> {
        self.check()?;
        if let Some(network) = &self.classifier_config {
            return Ok(network.clone());
        }
        let (_, diffusion) = self.diffusion()?;
        let pool = self.pool.unwrap_or(Pool::Attention);
        let mut network = EncoderUNetConfig::for_classifier(diffusion.unet(), self.num_classes, pool);
        // Required in CompVis' configs, optional in ours.
        network.image_size.get_or_insert([diffusion.image_size; 2]);
        Ok(network)
    }

    /// The diffusion model whose noisy latents are classified, not built.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the config names none, or one with semantic maps, which CompVis would classify;
    /// [`Error::Format`] for a first stage; else as [`ModelSource::find`].
    pub fn diffusion(&self) -> Result<(ModelSource, LatentDiffusionConfig)> {
        let Some(path) = &self.diffusion_path else {
            return Err(Error::invalid(
                "diffusion_path: expected the diffusion model whose noisy latents are classified, got none",
            ));
        };
        let source = match (project(path)?, &self.diffusion_ckpt_path) {
            (Some(config), weights) => {
                let last = path.join("checkpoints/last.ckpt");
                ModelSource::find(weights.as_ref().unwrap_or(&last), Some(&config), true)?
            }
            (None, Some(weights)) => {
                let configs = [path.join("model/config.yaml"), path.join("config.yaml")];
                let config = configs.into_iter().find(|path| path.is_file());
                ModelSource::find(weights, config.as_deref(), true)?
            }
            (None, None) => ModelSource::find(path, None, true)?,
        };
        let ModelConfig::LatentDiffusion(config) = &source.config else {
            return Err(Error::format(path, "expected a diffusion model, got another model"));
        };
        let config = (**config).clone();
        if self.label_key.is_none() && config.cond_stage_key == "segmentation" {
            return Err(Error::invalid(
                "label_key: expected class_label for a diffusion model conditioned on semantic maps, got none",
            ));
        }
        Ok((source, config))
    }

    /// All paths in the config.
    pub(crate) fn paths(&mut self) -> [&mut Option<PathBuf>; 3] {
        [&mut self.diffusion_path, &mut self.ckpt_path, &mut self.diffusion_ckpt_path]
    }
}

/// The newest config of a run of CompVis' trainer; names begin with the time (`classifier.py:46`).
fn project(folder: &Path) -> Result<Option<PathBuf>> {
    let configs = folder.join("configs");
    if !configs.is_dir() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&configs).map_err(Error::io(&configs))? {
        let path = entry.map_err(Error::io(&configs))?.path();
        if path.to_string_lossy().ends_with("-project.yaml") {
            found.push(path);
        }
    }
    Ok(found.into_iter().max())
}
