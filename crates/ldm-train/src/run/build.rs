//! Objective and data of a run's config.

use std::path::Path;
use std::sync::Arc;

use ldm_autoencoder::{FirstStageConfig, ImageKind};
use ldm_checkpoint::Checkpoint;
use ldm_core::noise::{PerStep, mix};
use ldm_core::{Error, Result};
use ldm_data::{Dataset, PriorPreservation};
use ldm_pipelines::{ClassifierConfig, LatentDiffusionConfig, ModelConfig, ModelSource, weights_file};
use tch::Device;

use crate::config::RunConfig;
use crate::distributed::Distributed;
use crate::objective::Objective;
use crate::objective::autoencoder::AutoencoderObjective;
use crate::objective::classifier::ClassifierObjective;
use crate::objective::diffusion::DiffusionObjective;
use crate::objective::embedding::EmbeddingObjective;
use crate::objective::init_from::InitFrom;
use crate::objective::lora::LoraObjective;
use crate::objective::losses::LossConfig;
use crate::objective::model_checks::{check_classes, check_label_maps};

/// Objective, training set, held-out set.
pub(crate) type Parts = (Box<dyn Objective>, Arc<dyn Dataset>, Option<Arc<dyn Dataset>>);

/// Opens the data of a config and builds its objective; writes nothing. A `new_run` loads the weights that its config
/// names; a resumed one only loads the base of a LoRA, as the checkpoint has everything else.
pub(crate) fn build(config: &RunConfig, device: Device, ranks: &Distributed, new_run: bool) -> Result<Parts> {
    let base = config.path().parent().unwrap_or(Path::new("."));
    let data = training_set(config, base)?;
    ranks.check_batch(data.len(), config.data.batch_size).map_err(|error| in_config(config, error))?;
    let validation = config.data.validation.as_ref().map(|set| set.open(base)).transpose()?;
    for set in [Some(&data), validation.as_ref()].into_iter().flatten() {
        match &config.model {
            ModelConfig::LatentDiffusion(model) => {
                check_classes(model, &**set).map_err(|error| in_config(config, error))?;
                if new_run {
                    ranks.rank_zero_only(|| check_label_maps(model, &**set))?;
                }
            }
            ModelConfig::Classifier(model) => check_classifier(config, model, set.classes().len())?,
            other => {
                let model = other.first_stage().expect("every other model is a first stage");
                check_labels(config, &model, &**set, new_run.then_some(ranks))?;
            }
        }
    }
    // Initialization draws from libtorch's global generator.
    ldm_libtorch::set_seed(mix(config.train.seed, &[]));
    let init_from = init_from(config)?;
    let source = init_from
        .as_ref()
        .filter(|_| new_run || frozen_base(config).is_some())
        .map(|from| (from, || ModelSource::find(&from.path, None, from.ema)));
    let objective: Box<dyn Objective> = match &config.model {
        ModelConfig::LatentDiffusion(model) => {
            let has_base = init_from.is_some() && !model.load_only_unet;
            let first_stage = first_stage(config, model, has_base)?;
            let mut objective = DiffusionObjective::new(model, first_stage, (&config.train).into(), device)?;
            objective.take_names(&*data);
            if let Some((from, open)) = source {
                objective.start_from(open()?, from)?;
            }
            if let Some(key) = frozen_base(config)
                && init_from.is_none()
            {
                let message = format!("train.{key}: expected a base model in train.init_from, got none");
                return Err(config_error(config, &message));
            }
            if let Some(embedding) = &config.train.embedding {
                let objective = EmbeddingObjective::new(objective, embedding)
                    .map_err(|error| in_config(config, error))?;
                return Ok((Box::new(objective), data, validation));
            }
            if let Some(lora) = &config.train.lora {
                let mut noise = PerStep::new(config.train.seed, 0, u64::MAX - 1);
                let lora = LoraObjective::new(Box::new(objective), model, lora, &mut noise)?;
                return Ok((Box::new(lora), data, validation));
            }
            Box::new(objective)
        }
        ModelConfig::Classifier(model) => {
            let mut objective = ClassifierObjective::new(model, device)?;
            if let Some((from, open)) = source {
                objective.start_from(open()?, from)?;
            }
            Box::new(objective)
        }
        other => {
            let model = other.first_stage().expect("every other model is a first stage");
            check_first_stage(config, &model, ranks.world_size())?;
            let mut objective = AutoencoderObjective::new(&model, device)?;
            if let Some((from, open)) = source {
                objective.start_from(open()?, from)?;
            }
            Box::new(objective)
        }
    };
    if let Some(key) = frozen_base(config) {
        let got = if config.model.first_stage().is_some() { "first stage" } else { "classifier" };
        return Err(config_error(config, &format!("train.{key}: expected a diffusion model, got a {got}")));
    }
    Ok((objective, data, validation))
}

/// Opens the training set, with the class images of prior preservation; refuses consistency tuning of other models.
fn training_set(config: &RunConfig, base: &Path) -> Result<Arc<dyn Dataset>> {
    if config.train.consistency.is_some() && !matches!(config.model, ModelConfig::LatentDiffusion(_)) {
        let message = "train.consistency: expected a diffusion model, got another model";
        return Err(config_error(config, message));
    }
    let data = config.data.train.open(base)?;
    let Some(set) = &config.data.class_images else { return Ok(data) };
    let ModelConfig::LatentDiffusion(model) = &config.model else {
        let message = "train.with_prior_preservation: expected a diffusion model, got another one";
        return Err(config_error(config, message));
    };
    let class_images = set.open(base)?;
    check_classes(model, &*class_images).map_err(|error| in_config(config, error))?;
    Ok(Arc::new(PriorPreservation::new(data, class_images)?))
}

/// The key by which a part is trained in place of the weights of `init_from`.
fn frozen_base(config: &RunConfig) -> Option<&'static str> {
    let train = &config.train;
    train.lora.as_ref().map(|_| "lora").or(train.embedding.as_ref().map(|_| "embedding"))
}

/// Opens the checkpoint of a diffusion model's first stage, required unless `train.init_from` has one.
fn first_stage(
    config: &RunConfig,
    model: &LatentDiffusionConfig,
    has_base: bool,
) -> Result<Option<Checkpoint>> {
    let first_stage = ckpt_path(&model.first_stage_config);
    let first_stage = first_stage.map(|path| Checkpoint::open(weights_file(path)?)).transpose()?;
    let pixels = matches!(model.first_stage_config, FirstStageConfig::Identity(_));
    if first_stage.is_none() && !pixels && !has_base {
        return Err(config_error(
            config,
            "model.params.first_stage_config.params.ckpt_path: expected a trained first stage, got none",
        ));
    }
    Ok(first_stage)
}

/// Refuses codebooks without gradients on several ranks: ranks average gradients alone.
fn check_first_stage(config: &RunConfig, model: &FirstStageConfig, ranks: usize) -> Result<()> {
    if let FirstStageConfig::Vq(vq) = model
        && ranks > 1
        && (vq.ema_decay.is_some() || vq.restart_after.is_some())
    {
        return Err(config_error(
            config,
            &format!(
                "model.params.ema_decay, model.params.restart_after: expected one rank, got {ranks}; \
                 codebooks that are updated without gradients are not shared"
            ),
        ));
    }
    Ok(())
}

/// Refuses data of more labels than a first stage of label maps, or its discriminator, has; in place of label maps a
/// discriminator sees classes. For a new run, given its `ranks`, the maps are read too.
fn check_labels(
    config: &RunConfig,
    model: &FirstStageConfig,
    data: &dyn Dataset,
    ranks: Option<&Distributed>,
) -> Result<()> {
    let own = model.input().channels();
    let condition = LossConfig::of(model).map_err(|error| in_config(config, error))?.condition_channels(own);
    let refuse = |key: &str, expected: i64, given: i64, of: &str, got: i64| {
        let message = format!(
            "model.params.{key}: expected at least {expected} for the data's {given} {of}, got {got}"
        );
        Err(config_error(config, &message))
    };
    let discriminator = |given: i64, of: &str| match condition {
        Some(count) if given > count => {
            refuse("lossconfig.params.disc_in_channels", own + given, given, of, own + count)
        }
        _ => Ok(()),
    };
    let names = data.label_classes().len() as i64;
    let encoded = matches!(model.input(), ImageKind::LabelMap(_)).then_some(own);
    if encoded.is_some_and(|own| names > own) {
        return refuse("ddconfig.in_channels", names, names, "labels", own);
    }
    discriminator(names, "labels")?;
    if let (Some(ranks), Some(least)) = (ranks, encoded.into_iter().chain(condition).min()) {
        ranks.rank_zero_only(|| match data.check_labels(least)? {
            0 if names == 0 => discriminator(data.classes().len() as i64, "classes"),
            _ => Ok(()),
        })?;
    }
    Ok(())
}

/// Refuses settings of diffusion models, and data of more `classes` than the classifier has.
fn check_classifier(config: &RunConfig, model: &ClassifierConfig, classes: usize) -> Result<()> {
    let train = &config.train;
    if classes as i64 > model.num_classes {
        let got = model.num_classes;
        let message =
            format!("model.params.num_classes: expected at least the data's {classes} classes, got {got}");
        return Err(config_error(config, &message));
    }
    for (key, given) in [
        ("train.conditioning_dropout", train.conditioning_dropout != 0.),
        ("train.min_snr_gamma", train.min_snr_gamma.is_some()),
        ("train.offset_noise", train.offset_noise != 0.),
    ] {
        if given {
            return Err(config_error(
                config,
                &format!("{key}: expected a diffusion model, got a classifier; try without the key"),
            ));
        }
    }
    Ok(())
}

/// `train.init_from`, or the equivalent keys of CompVis (`ckpt_path`, `ignore_keys`).
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
            return Err(config_error(
                config,
                "train.init_from: expected none with model.params.ckpt_path, got one",
            ));
        }
        // CompVis loads the weights without the EMA.
        (Some(path), None) => Some(InitFrom { path, ema: false, ignore }),
        (None, given) => given.clone(),
    };
    if let Some(from) = found.as_mut().filter(|_| own_first_stage) {
        from.ignore.push("first_stage_model.".into()); // the config names another one
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

fn config_error(config: &RunConfig, message: &str) -> Error {
    Error::config(config.path(), message)
}

/// Adds the config file to an [`Error::Invalid`].
fn in_config(config: &RunConfig, error: Error) -> Error {
    match error {
        Error::Invalid(message) => Error::config(config.path(), message),
        other => other,
    }
}
