//! The config of a classifier of noisy latents: CompVis' fields and their defaults.

use std::path::{Path, PathBuf};

use ldm_core::config::Value;
use ldm_core::{Error, Result};
use ldm_unet::{EncoderUNetConfig, Pool};
use serde::{Deserialize, Serialize};

use crate::{LatentDiffusionConfig, ModelConfig, ModelSource};

/// The fields of CompVis' `NoisyLatentImageClassifier` (`classifier.py:28`), with their defaults, and `classifier_config`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The diffusion model whose noisy latents are classified: what `--model` takes, or a folder of CompVis' trainer,
    /// whose newest `configs/*-project.yaml` counts. Training needs it.
    #[serde(default)]
    pub diffusion_path: Option<PathBuf>,
    /// How many classes there are.
    pub num_classes: i64,
    /// Another classifier, whose weights a new run starts from.
    #[serde(default)]
    pub ckpt_path: Option<PathBuf>,
    /// How a map becomes one vector; [`Pool::Attention`] where absent.
    #[serde(default)]
    pub pool: Option<Pool>,
    /// What of the data is classified; `class_label` is the only value.
    #[serde(default)]
    pub label_key: Option<String>,
    /// The weights of the diffusion model, where they do not lie in its folder.
    #[serde(default)]
    pub diffusion_ckpt_path: Option<PathBuf>,
    /// CompVis' course of the learning rate; refused in training, where it is `train.schedule`.
    #[serde(default)]
    pub scheduler_config: Option<Value>,
    /// AdamW's decoupled weight decay; 0.01 where absent.
    #[serde(default)]
    pub weight_decay: Option<f64>,
    /// At how many noise levels a preview shows an image.
    #[serde(default = "ten")]
    pub log_steps: usize,
    /// The number that CompVis' trainer keeps its best checkpoints by; `train.keep_best` says it here.
    #[serde(default)]
    pub monitor: Option<String>,
    /// The network, where it is not to be the diffusion model's U-Net with a pool; the reference has no such key. What
    /// a run hands on has it, so that it can do without the diffusion model.
    #[serde(default)]
    pub classifier_config: Option<EncoderUNetConfig>,
}

fn ten() -> usize {
    10
}

impl ClassifierConfig {
    /// Refuses by name what the reference has and this version has not, and what cannot be.
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
                    "maps of classes are not classified in this version, expected class_label".into(),
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
            return refuse("log_steps", "expected at least 1".into());
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
            return refuse("pool", "classifier_config says another, leave one of them out".into());
        }
        Ok(())
    }

    /// What the network is made of: as said, else the diffusion model's U-Net, its way down and a pool. CompVis
    /// `classifier.py:95` `load_classifier`.
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
        // The reference's U-Nets must say it, ours need not.
        network.image_size.get_or_insert([diffusion.image_size; 2]);
        Ok(network)
    }

    /// The diffusion model whose noisy latents are classified, found and not built.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the config names none, or one whose maps of classes the reference would classify;
    /// [`Error::Format`] for a first stage; else as [`ModelSource::find`].
    pub fn diffusion(&self) -> Result<(ModelSource, LatentDiffusionConfig)> {
        let Some(path) = &self.diffusion_path else {
            return Err(Error::invalid(
                "diffusion_path: a classifier needs the diffusion model whose noisy latents it classifies",
            ));
        };
        let source = match (project(path)?, &self.diffusion_ckpt_path) {
            (Some(config), weights) => {
                let last = path.join("checkpoints/last.ckpt");
                ModelSource::find(weights.as_ref().unwrap_or(&last), Some(&config), true)?
            }
            (None, Some(weights)) => {
                let beside = [path.join("model/config.yaml"), path.join("config.yaml")];
                let config = beside.into_iter().find(|path| path.is_file());
                ModelSource::find(weights, config.as_deref(), true)?
            }
            (None, None) => ModelSource::find(path, None, true)?,
        };
        let ModelConfig::LatentDiffusion(config) = &source.config else {
            return Err(Error::format(path, "no diffusion model, whose noisy latents could be classified"));
        };
        let config = (**config).clone();
        if self.label_key.is_none() && config.cond_stage_key == "segmentation" {
            return Err(Error::invalid(
                "label_key: this diffusion model is told maps of classes, which are not classified in this version, \
                 expected class_label",
            ));
        }
        Ok((source, config))
    }

    /// Every path it names.
    pub(crate) fn paths(&mut self) -> [&mut Option<PathBuf>; 3] {
        [&mut self.diffusion_path, &mut self.ckpt_path, &mut self.diffusion_ckpt_path]
    }
}

/// The newest config of a run of CompVis' trainer: their names begin with the time (`classifier.py:46`).
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
