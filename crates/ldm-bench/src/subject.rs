//! Subject of a benchmark: a config, optionally with weights.

use std::path::{Path, PathBuf};

use ldm_autoencoder::{EncoderConfig, FirstStageConfig};
use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use ldm_pipelines::{LatentDiffusionConfig, LoadOptions, Model, ModelConfig, ModelFile, ModelSource};
use tch::{Device, Kind};

use crate::BenchEvent;

/// A model to time.
#[derive(Debug)]
pub struct BenchSubject {
    /// Its path.
    pub name: PathBuf,
    /// Its config.
    pub config: ModelConfig,
    /// The device.
    pub device: Device,
    /// The dtype of the weights; for training, that of autocast.
    pub kind: Kind,
    /// Height and width of its images.
    pub size: [i64; 2],
    weights: Option<Checkpoint>,
}

impl BenchSubject {
    /// Opens the model at `path` with its weights; `size` replaces the training size.
    ///
    /// # Errors
    /// When there is no model, or it is a classifier.
    pub fn from_model(
        path: &Path,
        config: Option<&Path>,
        size: Option<[i64; 2]>,
        device: Device,
        kind: Kind,
        observe: &mut dyn FnMut(BenchEvent),
    ) -> Result<Self> {
        let found = ModelSource::find(path, config, true)?;
        found.notes.iter().for_each(|note| observe(BenchEvent::Note(note)));
        Self::new(path, found.config, Some(found.checkpoint), size, device, kind)
    }

    /// Creates the model of the config at `path` with random weights; `size` replaces the training size.
    ///
    /// # Errors
    /// When there is no config, or it is a classifier's.
    pub fn from_config(path: &Path, size: Option<[i64; 2]>, device: Device, kind: Kind) -> Result<Self> {
        Self::new(path, ModelFile::read(path, &[])?.model, None, size, device, kind)
    }

    fn new(
        path: &Path,
        config: ModelConfig,
        weights: Option<Checkpoint>,
        size: Option<[i64; 2]>,
        device: Device,
        kind: Kind,
    ) -> Result<Self> {
        if matches!(config, ModelConfig::Classifier(_)) {
            let message = "expected a diffusion model or a first stage, got a classifier of noisy latents";
            return Err(Error::config(path, message));
        }
        let mut subject = Self { name: path.to_path_buf(), config, device, kind, size: [0; 2], weights };
        subject.size = size.unwrap_or_else(|| [subject.trained_at(); 2]);
        Ok(subject)
    }

    /// Builds the model, with its weights or random ones, without a tokenizer: its prompts are tokens.
    pub(crate) fn open(&self) -> Result<Model> {
        Ok(match &self.weights {
            Some(weights) => {
                let options = LoadOptions { kind: self.kind, ..LoadOptions::new(self.device) };
                Model::load(&self.config, weights.clone(), None, &options)?
            }
            None => Model::from_config(&self.config, self.device, self.kind)?,
        })
    }

    /// Returns true when its weights are random.
    pub fn is_fresh(&self) -> bool {
        self.weights.is_none()
    }

    pub(crate) fn diffusion(&self) -> Option<&LatentDiffusionConfig> {
        match &self.config {
            ModelConfig::LatentDiffusion(config) => Some(config),
            _ => None,
        }
    }

    /// Returns the first stage, if it is a network.
    pub(crate) fn first_stage(&self) -> Option<FirstStageConfig> {
        let config = self.diffusion().map(|config| config.first_stage_config.clone());
        config.or_else(|| self.config.first_stage()).filter(|config| network(config).is_some())
    }

    /// Returns the downsampling factor.
    pub(crate) fn factor(&self) -> i64 {
        self.first_stage().as_ref().and_then(network).map_or(1, EncoderConfig::factor)
    }

    /// Returns the channels of the images.
    pub(crate) fn image_channels(&self) -> i64 {
        self.first_stage().as_ref().and_then(network).map_or(3, |network| network.in_channels)
    }

    /// Returns height and width of the latents.
    pub(crate) fn latent_size(&self) -> [i64; 2] {
        self.size.map(|side| side / self.factor())
    }

    fn trained_at(&self) -> i64 {
        match (self.diffusion(), self.first_stage()) {
            (Some(config), _) => config.image_size * self.factor(),
            (None, first_stage) => {
                first_stage.as_ref().and_then(network).map_or(0, |network| network.resolution)
            }
        }
    }
}

fn network(config: &FirstStageConfig) -> Option<&EncoderConfig> {
    match config {
        FirstStageConfig::Kl(kl) => Some(&kl.ddconfig),
        FirstStageConfig::Vq(vq) => Some(&vq.ddconfig),
        FirstStageConfig::Identity(_) => None,
    }
}
