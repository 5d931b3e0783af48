//! The config file of a run: `model`, `data` and `train`.

use std::path::{Path, PathBuf};

use ldm_core::config::{self, Value};
use ldm_core::{Error, Result};
use ldm_pipelines::{ModelConfig, ModelFile, resolve_first_stage};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::data_module::{DataConfig, DataModule, MAX_WORKERS};
use super::paths::{drop_key, make_absolute};
use super::train_config::TrainConfig;
use crate::objective::losses::LossConfig;
use crate::optim::AdamWConfig;

/// The keys that may change in a resumed run, and all below them: none changes the model, or the images and the noise of
/// a step.
const RESUMABLE: [&str; 17] = [
    "train.steps",
    "train.learning_rate",
    "model.base_learning_rate",
    "train.schedule",
    "train.tf32",
    "train.deterministic",
    "train.max_skipped",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep",
    "train.keep_every",
    "train.keep_best",
    "train.validate_every",
    "train.validate_images",
    "train.samples",
    "data.params.num_workers",
    "data.params.strict",
];

/// The config of a run, and the tree it was read from, which is written to the run directory. Unknown keys are errors.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// The model to train.
    pub model: ModelConfig,
    /// CompVis' `base_learning_rate`.
    pub base_learning_rate: Option<f64>,
    /// The data.
    pub data: DataModule,
    /// The training loop.
    pub train: TrainConfig,
    tree: Value,
    path: PathBuf,
}

impl RunConfig {
    /// Reads a config file with `overrides` (`a.b.c=value`).
    ///
    /// Relative paths are looked up in the folder of the file, then in the current directory, and those of datasets in
    /// the folder `LDM_DATA`; the tree has absolute paths, so that a run can be resumed from anywhere. A first stage
    /// named by its run is replaced by its config ([`resolve_first_stage`]).
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Config`] with the key, the expected value, and the line.
    pub fn read(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        let path = path.as_ref();
        let text = ldm_core::text::read(path)?;
        Self::parse(&text, path, overrides)
    }

    /// [`RunConfig::read`] for a run that goes on: `overrides` of keys that may change alone.
    ///
    /// # Errors
    /// As [`RunConfig::read`]; [`Error::Config`] with the first key that may not change.
    pub(crate) fn read_to_resume(path: PathBuf, overrides: &[String]) -> Result<Self> {
        for each in overrides {
            let key = each.split_once('=').map_or(each.as_str(), |(key, _)| key);
            let below = |allowed: &&str| {
                key.strip_prefix(*allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            if !RESUMABLE.iter().any(below) {
                let allowed = RESUMABLE.join(", ");
                let message = format!(
                    "{key}: expected a key that may change in a resumed run ({allowed}), got another one; try a new run \
                     with train.init_from"
                );
                return Err(Error::config(path, message));
            }
        }
        Self::read(path, overrides)
    }

    /// [`RunConfig::read`] from text; `path` is used in errors, and relative paths are looked up in its folder.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, the expected value, and the line.
    pub fn parse(text: &str, path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct RunTree {
            #[serde(rename = "model")]
            _model: IgnoredAny,
            data: DataConfig,
            train: TrainConfig,
            #[serde(rename = "lightning", default)]
            _lightning: IgnoredAny,
        }
        let path = path.as_ref();
        // Parsed as written first, so that errors have the file's line numbers.
        let _: RunTree = config::parse(text, path, overrides)?;
        ModelFile::parse(text, path, overrides)?;

        let mut tree = config::merge(text, path, overrides)?;
        make_absolute(&mut tree, path.parent().unwrap_or(Path::new(".")));
        resolve_first_stage(&mut tree, path)?;
        let resolved = config::to_text(&tree);
        let mut typed: RunTree = config::parse(&resolved, path, &[])?;
        typed.train.cache_latents.make_absolute();
        let model = ModelFile::parse(&resolved, path, &[])?;
        if tree["train"].get("optimizer").is_none() && has_discriminator(&model.model) {
            typed.train.optimizer = AdamWConfig::adversarial();
        }
        if let ModelConfig::Classifier(classifier) = &model.model
            && let Some(decay) = classifier.weight_decay
        {
            let given =
                tree["train"].get("optimizer").is_some_and(|given| given.get("weight_decay").is_some());
            let expected = typed.train.optimizer.weight_decay;
            if given && expected != decay {
                let key = "model.params.weight_decay";
                let message =
                    format!("{key}: expected train.optimizer.weight_decay, {expected}, got {decay}");
                return Err(Error::config(path, message));
            }
            typed.train.optimizer.weight_decay = decay;
        }
        move_scheduler(&mut tree, &mut typed.train, path)?;
        obey_use_ema(&tree, &mut typed.train, path)?;
        let DataConfig::DataModule(data) = typed.data;
        tree["train"] = serde_yaml::to_value(&typed.train).expect("numbers and strings");
        let config = Self {
            model: model.model,
            base_learning_rate: model.base_learning_rate,
            data,
            train: typed.train,
            tree,
            path: path.to_path_buf(),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::config(&self.path, message));
        if self.data.batch_size == 0 {
            return refuse("data.params.batch_size: expected at least 1, got 0".into());
        }
        let workers = self.data.num_workers;
        if workers > MAX_WORKERS {
            return refuse(format!("data.params.num_workers: expected at most {MAX_WORKERS}, got {workers}"));
        }
        match (self.train.with_prior_preservation, &self.data.class_images) {
            (true, None) => {
                return refuse(
                    "data.params.class_images: expected class images for train.with_prior_preservation, got none".into(),
                );
            }
            (false, Some(_)) => {
                return refuse(
                    "data.params.class_images: expected train.with_prior_preservation: true with it, got false".into(),
                );
            }
            _ => {}
        }
        if let Err(message) = self.train.check(self.data.validation.is_some()) {
            return refuse(message);
        }
        let rate = self.learning_rate(1)?;
        if !(rate.is_finite() && rate > 0.) {
            return refuse(format!("train.learning_rate: expected a positive number, got {rate}"));
        }
        Ok(())
    }

    /// The learning rate on `ranks` ranks, before its schedule.
    ///
    /// # Errors
    /// [`Error::Config`] when the config has none.
    pub fn learning_rate(&self, ranks: usize) -> Result<f64> {
        self.train.base_rate(self.base_learning_rate, ranks * self.data.batch_size).ok_or_else(|| {
            let message = "train.learning_rate: expected a positive number, got none; try \
                           train.learning_rate or model.base_learning_rate";
            Error::config(&self.path, message)
        })
    }

    /// The resolved config as YAML, the content of a run's `config.yaml`.
    pub fn to_text(&self) -> String {
        config::to_text(&self.tree)
    }

    /// Completes a classifier's config with the network that its diffusion model implies, so that the run can be read
    /// without that model.
    ///
    /// # Errors
    /// As [`ClassifierConfig::network`](ldm_pipelines::ClassifierConfig::network).
    pub fn complete(mut self) -> Result<Self> {
        if let ModelConfig::Classifier(classifier) = &mut self.model {
            let network = classifier.network().map_err(|error| match error {
                Error::Invalid(message) => Error::config(&self.path, format!("model.params.{message}")),
                other => other,
            })?;
            let tree = serde_yaml::to_value(&network).expect("numbers and strings");
            self.tree["model"]["params"]["classifier_config"] = tree;
            classifier.classifier_config = Some(network);
        }
        Ok(self)
    }

    /// The config of the exported model as YAML: `model` without the paths of weights, which are all in its
    /// `model.safetensors`.
    pub fn model_text(&self) -> String {
        let mut model = self.tree["model"].clone();
        for key in ["ckpt_path", "diffusion_path", "diffusion_ckpt_path"] {
            drop_key(&mut model, key);
        }
        let mut tree = serde_yaml::Mapping::new();
        tree.insert("model".into(), model);
        config::to_text(&Value::Mapping(tree))
    }

    /// The path of the config file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

const SCHEDULER: &str = "model.params.scheduler_config";

/// Makes CompVis' `scheduler_config` of the model the run's `train.schedule`, in which CompVis' three schedules are
/// known by their class names.
fn move_scheduler(tree: &mut Value, train: &mut TrainConfig, path: &Path) -> Result<()> {
    let given = tree["train"].get("schedule").is_some();
    let Some(params) = tree["model"].get_mut("params").and_then(Value::as_mapping_mut) else { return Ok(()) };
    let Some(scheduler) = params.remove("scheduler_config").filter(|scheduler| !scheduler.is_null()) else {
        return Ok(());
    };
    if given {
        return Err(Error::config(path, format!("{SCHEDULER}: expected none with train.schedule, got one")));
    }
    train.schedule = serde_yaml::from_value(scheduler)
        .map_err(|error| Error::config(path, format!("{SCHEDULER}: {error}")))?;
    train.schedule.check(train.steps).map_err(|error| Error::config(path, format!("{SCHEDULER}.{error}")))
}

/// Obeys CompVis' `use_ema` of the model where the config has no `train.ema`, and refuses a contradiction.
fn obey_use_ema(tree: &Value, train: &mut TrainConfig, path: &Path) -> Result<()> {
    let model = tree["model"].get("params").and_then(|params| params.get("use_ema"));
    let Some(use_ema) = model.and_then(Value::as_bool) else { return Ok(()) };
    let given = tree["train"].get("ema").is_some();
    if given && use_ema != train.ema.is_some() {
        let (expected, got) = if use_ema { ("an EMA", "none") } else { ("none", "one") };
        let message =
            format!("train.ema: expected {expected}, as model.params.use_ema is {use_ema}, got {got}");
        return Err(Error::config(path, message));
    }
    if !use_ema {
        train.ema = None;
    }
    Ok(())
}

/// True for a first stage that is trained with a discriminator.
fn has_discriminator(model: &ModelConfig) -> bool {
    let loss = model.first_stage().map(|config| LossConfig::of(&config));
    matches!(loss, Some(Ok(LossConfig::Kl(_) | LossConfig::Vq(_))))
}
