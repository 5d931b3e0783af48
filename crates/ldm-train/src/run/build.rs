//! From a config to the model and the data it names; nothing is written.

use std::path::Path;
use std::sync::Arc;

use ldm_autoencoder::FirstStageConfig;
use ldm_checkpoint::Checkpoint;
use ldm_core::noise::{PerStep, mix};
use ldm_core::{Error, Result};
use ldm_data::Dataset;
use ldm_pipelines::{ClassifierConfig, ModelConfig, ModelSource, weights_file};
use tch::Device;

use crate::config::RunConfig;
use crate::distributed::Distributed;
use crate::objective::Objective;
use crate::objective::autoencoder::AutoencoderObjective;
use crate::objective::classifier::ClassifierObjective;
use crate::objective::diffusion::DiffusionObjective;
use crate::objective::init_from::InitFrom;
use crate::objective::lora::LoraObjective;

pub(crate) type Parts = (Box<dyn Objective>, Arc<dyn Dataset>, Option<Arc<dyn Dataset>>);

/// Data and model of a config, nothing written. A `fresh` run starts from the weights its config names; one that is
/// taken up again finds its own in its checkpoint, but for those a LoRA stands beside.
pub(crate) fn parts(config: &RunConfig, device: Device, ranks: &Distributed, fresh: bool) -> Result<Parts> {
    let base = config.path().parent().unwrap_or(Path::new("."));
    let data = config.data.train.open(base)?;
    ranks.check_batch(config.path(), data.len(), config.data.batch_size)?;
    let validation = config.data.validation.as_ref().map(|set| set.open(base)).transpose()?;
    // Initialization draws from libtorch's global generator.
    ldm_libtorch::set_seed(mix(config.train.seed, &[]));
    let init_from = init_from(config)?;
    let mut objective: Box<dyn Objective> = match &config.model {
        ModelConfig::LatentDiffusion(model) => {
            if model.scheduler_config.is_some() {
                return Err(refused(
                    config,
                    "model.params.scheduler_config: the learning rate's course is train.schedule here, leave it out",
                ));
            }
            let first_stage = ckpt_path(&model.first_stage_config);
            let first_stage = first_stage.map(|path| Checkpoint::open(weights_file(path)?)).transpose()?;
            let pixels = matches!(model.first_stage_config, FirstStageConfig::Identity(_));
            if first_stage.is_none() && !pixels && init_from.is_none() {
                return Err(refused(
                    config,
                    "model.params.first_stage_config.params.ckpt_path: a diffusion model needs the trained first stage it stands on",
                ));
            }
            Box::new(DiffusionObjective::new(model, first_stage, (&config.train).into(), device)?)
        }
        ModelConfig::Classifier(model) => {
            check_classifier(config, model, data.classes().len())?;
            Box::new(ClassifierObjective::new(model, device)?)
        }
        other => {
            let first_stage = other.first_stage().expect("every other model is a first stage");
            if let FirstStageConfig::Vq(vq) = &first_stage
                && ranks.world_size() > 1
                && (vq.ema_decay.is_some() || vq.restart_after.is_some())
            {
                return Err(refused(
                    config,
                    "model.params.ema_decay, model.params.restart_after: ranks do not share a codebook that moves without a gradient, train on one",
                ));
            }
            Box::new(AutoencoderObjective::new(&first_stage, device)?)
        }
    };
    if let Some(from) = init_from.as_ref().filter(|_| fresh || config.train.lora.is_some()) {
        objective.start_from(ModelSource::find(&from.path, None, from.ema)?, from)?;
    }
    if let Some(lora) = &config.train.lora {
        let ModelConfig::LatentDiffusion(model) = &config.model else {
            let what = if config.model.first_stage().is_some() { "first stage" } else { "classifier" };
            return Err(refused(config, &format!("train.lora: a {what} has no LoRA, train all of it")));
        };
        if init_from.is_none() {
            return Err(refused(
                config,
                "train.lora: a LoRA stands beside a model there is, name it in train.init_from",
            ));
        }
        let mut noise = PerStep::new(config.train.seed, 0, u64::MAX - 1);
        objective = Box::new(LoraObjective::new(objective, model, lora, &mut noise)?);
    }
    Ok((objective, data, validation))
}

/// Refuses what a classifier has no use for, and data of more `classes` than it is to know.
fn check_classifier(config: &RunConfig, model: &ClassifierConfig, classes: usize) -> Result<()> {
    let train = &config.train;
    if classes as i64 > model.num_classes {
        let got = model.num_classes;
        let why = format!("model.params.num_classes: the data has {classes} classes, got {got}");
        return Err(refused(config, &why));
    }
    for (key, given) in [
        ("train.conditioning_dropout", train.conditioning_dropout != 0.),
        ("train.min_snr_gamma", train.min_snr_gamma.is_some()),
        ("train.offset_noise", train.offset_noise != 0.),
    ] {
        if given {
            return Err(refused(config, &format!("{key}: a classifier denoises nothing, leave it out")));
        }
    }
    if model.scheduler_config.is_some() {
        return Err(refused(
            config,
            "model.params.scheduler_config: the learning rate's course is train.schedule here, leave it out",
        ));
    }
    Ok(())
}

/// `train.init_from`, or what the reference's keys say of the same.
fn init_from(config: &RunConfig) -> Result<Option<InitFrom>> {
    let (path, ignore, own_first_stage) = match &config.model {
        ModelConfig::LatentDiffusion(model) => {
            let own = ckpt_path(&model.first_stage_config).is_some();
            (model.ckpt_path.clone(), model.ignore_keys.clone(), own)
        }
        ModelConfig::Classifier(model) => (model.ckpt_path.clone(), Vec::new(), false),
        other => {
            let first_stage = other.first_stage().expect("every other model is a first stage");
            let ignore = match &first_stage {
                FirstStageConfig::Kl(kl) => kl.ignore_keys.clone(),
                FirstStageConfig::Vq(vq) => vq.ignore_keys.clone(),
                FirstStageConfig::Identity(_) => Vec::new(),
            };
            (ckpt_path(&first_stage).map(Path::to_path_buf), ignore, false)
        }
    };
    let mut found = match (path, &config.train.init_from) {
        (Some(_), Some(_)) => {
            return Err(refused(config, "model.params.ckpt_path and train.init_from say the same: give one"));
        }
        // As the reference, which takes the weights as trained.
        (Some(path), None) => Some(InitFrom { path, ema: false, ignore }),
        (None, given) => given.clone(),
    };
    if let Some(from) = found.as_mut().filter(|_| own_first_stage) {
        from.ignore.push("first_stage_model.".into()); // the one that the config names by itself
    }
    Ok(found)
}

fn ckpt_path(first_stage: &FirstStageConfig) -> Option<&Path> {
    match first_stage {
        FirstStageConfig::Kl(kl) => kl.ckpt_path.as_deref(),
        FirstStageConfig::Vq(vq) => vq.ckpt_path.as_deref(),
        FirstStageConfig::Identity(_) => None,
    }
}

fn refused(config: &RunConfig, why: &str) -> Error {
    Error::config(config.path(), why)
}
