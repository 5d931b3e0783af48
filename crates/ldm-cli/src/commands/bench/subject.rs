//! What is timed: a config, and perhaps weights.

use std::path::PathBuf;

use anyhow::{Context, bail};
use ldm_autoencoder::{EncoderConfig, FirstStageConfig};
use ldm_checkpoint::Checkpoint;
use ldm_pipelines::{LatentDiffusionConfig, LoadOptions, Model, ModelConfig, ModelFile, ModelSource};
use tch::{Device, Kind};

use crate::args::BenchArgs;
use crate::progress::Printer;

pub(super) struct Subject {
    /// As it was named.
    pub(super) name: PathBuf,
    pub(super) config: ModelConfig,
    pub(super) device: Device,
    pub(super) kind: Kind,
    /// Height and width of its images.
    pub(super) size: [i64; 2],
    weights: Option<Checkpoint>,
}

impl Subject {
    /// What the words name.
    pub(super) fn find(args: &BenchArgs, device: Device, kind: Kind) -> anyhow::Result<Self> {
        let (name, config, weights) = if let Some(path) = &args.model {
            let found = ModelSource::find(path, args.config.as_deref(), true)?;
            found.notes.iter().for_each(|note| Printer::warn(note));
            (path, found.config, Some(found.checkpoint))
        } else {
            let path = args.config.as_ref().context("a model, or a config")?;
            (path, ModelFile::read(path, &[])?.model, None)
        };
        if matches!(config, ModelConfig::Classifier(_)) {
            bail!(
                "{}: a classifier of noisy latents, expected a diffusion model or a first stage",
                name.display()
            );
        }
        let mut subject = Self { name: name.clone(), config, device, kind, size: [0; 2], weights };
        subject.size = args.height.zip(args.width).map_or_else(|| [subject.trained_at(); 2], Into::into);
        Ok(subject)
    }

    /// Builds it, with its weights or fresh ones. Texts are not needed, tokens are.
    pub(super) fn open(&self) -> anyhow::Result<Model> {
        Ok(match &self.weights {
            Some(weights) => {
                let options = LoadOptions { kind: self.kind, ..LoadOptions::new(self.device) };
                Model::load(&self.config, weights.clone(), None, &options)?
            }
            None => Model::from_config(&self.config, self.device, self.kind)?,
        })
    }

    /// Whether its weights are just drawn.
    pub(super) fn is_fresh(&self) -> bool {
        self.weights.is_none()
    }

    pub(super) fn diffusion(&self) -> Option<&LatentDiffusionConfig> {
        match &self.config {
            ModelConfig::LatentDiffusion(config) => Some(config),
            _ => None,
        }
    }

    /// The first stage, where it is a network.
    pub(super) fn first_stage(&self) -> Option<FirstStageConfig> {
        let config = self.diffusion().map(|config| config.first_stage_config.clone());
        config.or_else(|| self.config.first_stage()).filter(|config| network(config).is_some())
    }

    /// By how much a latent is smaller than its image.
    pub(super) fn factor(&self) -> i64 {
        self.first_stage().as_ref().and_then(network).map_or(1, EncoderConfig::factor)
    }

    /// Channels of an image, as the first stage takes it.
    pub(super) fn image_channels(&self) -> i64 {
        self.first_stage().as_ref().and_then(network).map_or(3, |network| network.in_channels)
    }

    /// Height and width of the latents.
    pub(super) fn latent_size(&self) -> [i64; 2] {
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
