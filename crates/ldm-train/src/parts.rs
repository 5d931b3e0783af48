//! From a config to the model and the data it names; nothing is written.

use std::path::Path;
use std::sync::Arc;

use ldm_autoencoder::{FirstStageConfig, KlConfig, VqConfig};
use ldm_core::noise::mix;
use ldm_core::weights::Checkpoint;
use ldm_core::{Error, Result};
use ldm_data::Dataset;
use ldm_pipelines::{ModelConfig, weights_file};
use tch::Device;

use crate::autoencoder::AutoencoderObjective;
use crate::config::RunConfig;
use crate::diffusion::DiffusionObjective;
use crate::objective::Objective;
use crate::ranks::Ranks;

pub(crate) type Parts = (Box<dyn Objective>, Arc<dyn Dataset>, Option<Arc<dyn Dataset>>);

/// Data and model of a config, nothing written.
pub(crate) fn parts(config: &RunConfig, device: Device, ranks: &Ranks) -> Result<Parts> {
    let base = config.path().parent().unwrap_or(Path::new("."));
    let data = config.data.train.open(base)?;
    ranks.check_batch(config.path(), data.len(), config.data.batch_size)?;
    let validation = config.data.validation.as_ref().map(|set| set.open(base)).transpose()?;
    // Initialisation draws from libtorch's global generator.
    ldm_libtorch::set_seed(mix(config.train.seed, &[]));
    let objective: Box<dyn Objective> = match &config.model {
        ModelConfig::LatentDiffusion(model) => {
            let first_stage = match &model.first_stage_config {
                FirstStageConfig::Kl(kl) => kl.ckpt_path.as_deref(),
                FirstStageConfig::Vq(vq) => vq.ckpt_path.as_deref(),
                FirstStageConfig::Identity(_) => None,
            };
            if model.scheduler_config.is_some() {
                let why = "the learning rate's course is train.schedule here, leave it out";
                return Err(Error::config(config.path(), format!("model.params.scheduler_config: {why}")));
            }
            if model.ckpt_path.is_some() {
                return Err(unsupported_start(config, "model.params.ckpt_path"));
            }
            let first_stage = first_stage.map(|path| Checkpoint::open(weights_file(path)?)).transpose()?;
            if first_stage.is_none() && !matches!(model.first_stage_config, FirstStageConfig::Identity(_)) {
                return Err(Error::config(
                    config.path(),
                    "model.params.first_stage_config.params.ckpt_path: a diffusion model needs the trained first stage it stands on",
                ));
            }
            let dropout = config.train.conditioning_dropout;
            Box::new(DiffusionObjective::new(model, first_stage, dropout, device)?)
        }
        other => {
            let first_stage = other.first_stage().expect("every other model is a first stage");
            if let FirstStageConfig::Kl(KlConfig { ckpt_path: Some(_), .. })
            | FirstStageConfig::Vq(VqConfig { ckpt_path: Some(_), .. }) = &first_stage
            {
                return Err(unsupported_start(config, "model.params.ckpt_path"));
            }
            Box::new(AutoencoderObjective::new(&first_stage, device)?)
        }
    };
    Ok((objective, data, validation))
}

/// Refuses to start from weights, which a later version will do, rather than to pass over the wish.
fn unsupported_start(config: &RunConfig, key: &str) -> Error {
    let why =
        "a new run starts from fresh weights in this version; leave it out, or go on with a run by --resume";
    Error::config(config.path(), format!("{key}: {why}"))
}
