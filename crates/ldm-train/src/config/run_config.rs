//! The file a person writes to train: `model`, `data` and `train`.

use std::path::{Path, PathBuf};

use ldm_core::config::{self, Value};
use ldm_core::{Error, Result};
use ldm_data::DatasetConfig;
use ldm_pipelines::{ModelConfig, ModelFile};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::config::paths::{drop_key, make_absolute};
use crate::latent_cache::CacheLatents;
use crate::objective::init_from::InitFrom;
use crate::objective::lora_config::LoraConfig;
use crate::objective::losses::LossConfig;
use crate::optim::AdamWConfig;
use crate::optim::EmaConfig;
use crate::optim::LearningRate;
use crate::run::retention::KeepBest;

/// Everything a run needs, read strictly; and the tree it was read from, to be kept beside the run.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// What is trained.
    pub model: ModelConfig,
    /// CompVis' `base_learning_rate`, where given.
    pub base_learning_rate: Option<f64>,
    /// On which images.
    pub data: DataModule,
    /// How.
    pub train: TrainConfig,
    tree: Value,
    path: PathBuf,
}

/// `data`, in the reference's form.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "target", content = "params", deny_unknown_fields)]
pub enum DataConfig {
    /// Sets and how they are batched. CompVis `main.py:186`.
    #[serde(rename = "data_module", alias = "main.DataModuleFromConfig")]
    DataModule(DataModule),
}

/// Sets and how they are batched.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataModule {
    /// Images a micro-batch, on each rank.
    pub batch_size: usize,
    /// Threads that read ahead; batches do not depend on it. 0 reads in the training thread.
    #[serde(default = "two")]
    pub num_workers: usize,
    /// The images to train on.
    pub train: DatasetConfig,
    /// The images to validate on.
    #[serde(default)]
    pub validation: Option<DatasetConfig>,
    /// Whether an unreadable image ends the run; else it is named once, skipped and counted.
    #[serde(default)]
    pub strict: bool,
}

/// `train`: the loop.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// The model a new run starts from; fresh weights where absent.
    pub init_from: Option<InitFrom>,
    /// Trains small factors beside the weights of `init_from`, and not the weights.
    pub lora: Option<LoraConfig>,
    /// Optimizer steps in all.
    pub steps: u64,
    /// Everything random follows from it.
    pub seed: u64,
    /// Learning rate as it is used. Where absent, `base_learning_rate · ranks · batch_size · accumulate` (CompVis
    /// `main.py:686`).
    pub learning_rate: Option<f64>,
    /// How the learning rate moves.
    pub schedule: LearningRate,
    /// AdamW; where absent PyTorch's, or [`AdamWConfig::adversarial`] of a first stage with a discriminator.
    pub optimizer: AdamWConfig,
    /// Micro-batches a step.
    pub accumulate: u64,
    /// Largest norm of all gradients reduce_metrics; none clips nothing.
    pub clip_grad: Option<f64>,
    /// A running average of the weights; `null` keeps none.
    pub ema: Option<EmaConfig>,
    /// Probability with which a condition is dropped, so that the model can be guided (Ho & Salimans 2022).
    pub conditioning_dropout: f64,
    /// No noise level of a diffusion model's loss counts more than this signal-to-noise ratio (Hang et al. 2023; they
    /// take 5).
    pub min_snr_gamma: Option<f64>,
    /// How much noise that is the same all over a channel is added to a latent's own (Guttenberg 2023, about 0.1).
    pub offset_noise: f64,
    /// Whether a diffusion model's images are encoded once and their latents kept: in the run's folder, or in a file
    /// that runs can share.
    pub cache_latents: CacheLatents,
    /// f32, or bf16 or f16 by autocast over f32 weights.
    pub dtype: Dtype,
    /// A step with a gradient that is no number is left out and counted; so many in a row end the run.
    pub max_skipped: u64,
    /// Steps between lines of `metrics.jsonl`.
    pub log_every: u64,
    /// Steps between checkpoints; the last step always writes one.
    pub checkpoint_every: u64,
    /// How many of the newest checkpoints are kept.
    pub keep: usize,
    /// Checkpoints of steps that are multiples of it are kept for good; 0 keeps none for good.
    pub keep_every: u64,
    /// The best checkpoints by a number of the validation are kept too; every validation then writes one.
    pub keep_best: Option<KeepBest>,
    /// Steps between validations; 0 validates at the end only.
    pub validate_every: u64,
    /// Images of a validation; 0 takes all.
    pub validate_images: usize,
    /// The image grids written while training.
    pub samples: SampleConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            init_from: None,
            lora: None,
            steps: 100_000,
            seed: 23, // main.py's
            learning_rate: None,
            schedule: LearningRate::default(),
            optimizer: AdamWConfig::default(),
            accumulate: 1,
            clip_grad: None,
            ema: Some(EmaConfig::default()),
            conditioning_dropout: 0.,
            min_snr_gamma: None,
            offset_noise: 0.,
            cache_latents: CacheLatents::No,
            dtype: Dtype::F32,
            max_skipped: 20, // the loss scale of f16 halves as often before it is 1
            log_every: 50,
            checkpoint_every: 1000,
            keep: 3,
            keep_every: 0,
            keep_best: None,
            validate_every: 0,
            validate_images: 512,
            samples: SampleConfig::default(),
        }
    }
}

/// Precision of the forward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Single precision.
    #[default]
    F32,
    /// bf16 autocast; weights, gradients and optimizer stay f32.
    Bf16,
    /// f16 autocast, the loss scaled so that small gradients do not vanish.
    F16,
}

impl Dtype {
    /// What autocast lowers to; f32 lowers nothing.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::F16 => Kind::Half,
        }
    }
}

/// The image grids written while training.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Steps between grids; 0 writes one at the end only.
    pub every: u64,
    /// Images a grid; 0 writes none.
    pub count: usize,
    /// DDIM steps a sample (diffusion models).
    pub steps: usize,
    /// Share of fresh noise in a step, as the reference's own logging has it (`ddpm.py:1251`, 1): a model that is
    /// still young at the noisiest levels errs there, and only fresh noise lets later steps mend it.
    pub eta: f64,
    /// Classifier-free guidance of the samples (diffusion models trained with dropout).
    pub guidance_scale: f64,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { every: 0, count: 16, steps: 50, eta: 1., guidance_scale: 1. }
    }
}

fn two() -> usize {
    2
}

impl RunConfig {
    /// Reads a config file with `overrides` (`a.b.c=value`).
    ///
    /// Relative paths in it are looked up beside the file first, then in the current folder; the kept tree holds
    /// absolute ones, so that a run can be resumed from anywhere.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Config`] with the key, what was expected, and the line.
    pub fn read(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Self::parse(&text, path, overrides)
    }

    /// [`RunConfig::read`] from text; `path` is named in errors, and relative paths are looked up beside it.
    pub fn parse(text: &str, path: impl AsRef<Path>, overrides: &[String]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Tree {
            #[serde(rename = "model")]
            _model: IgnoredAny,
            data: DataConfig,
            train: TrainConfig,
            #[serde(rename = "lightning", default)]
            _lightning: IgnoredAny,
        }
        let path = path.as_ref();
        // First from the text as it stands: its errors have the file's own lines.
        let _: Tree = config::parse(text, path, overrides)?;
        ModelFile::parse(text, path, overrides)?;

        let mut tree = config::merge(text, path, overrides)?;
        let beside = path.parent().unwrap_or(Path::new("."));
        make_absolute(&mut tree, beside);
        let resolved = config::to_text(&tree);
        let mut typed: Tree = config::parse(&resolved, path, &[])?;
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
            if given && typed.train.optimizer.weight_decay != decay {
                let why = "model.params.weight_decay and train.optimizer.weight_decay say the same: give one";
                return Err(Error::config(path, why));
            }
            typed.train.optimizer.weight_decay = decay;
        }
        let DataConfig::DataModule(data) = typed.data;
        tree["train"] = serde_yaml::to_value(&typed.train).expect("plain numbers and words");
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
        let train = &self.train;
        let positive: [(&str, u64); 7] = [
            ("train.max_skipped", train.max_skipped),
            ("train.steps", train.steps),
            ("train.accumulate", train.accumulate),
            ("train.log_every", train.log_every),
            ("train.checkpoint_every", train.checkpoint_every),
            ("train.keep", train.keep as u64),
            ("data.params.batch_size", self.data.batch_size as u64),
        ];
        for (key, value) in positive {
            if value == 0 {
                return refuse(format!("{key}: expected at least 1"));
            }
        }
        if !(0. ..=1.).contains(&train.conditioning_dropout) {
            return refuse(format!(
                "train.conditioning_dropout: expected a probability, got {}",
                train.conditioning_dropout
            ));
        }
        if let Some(Err(error)) = train.ema.as_ref().map(EmaConfig::check) {
            return refuse(format!("train.ema.{error}"));
        }
        if !(train.offset_noise.is_finite() && train.offset_noise >= 0.) {
            return refuse(format!("train.offset_noise: expected at least 0, got {}", train.offset_noise));
        }
        if train.clip_grad.is_some_and(|clip| clip <= 0.) {
            return refuse("train.clip_grad: expected a positive norm, or leave it out".into());
        }
        if let Some(best) = &train.keep_best {
            if self.data.validation.is_none() {
                return refuse("train.keep_best: needs held-back images, data.params.validation".into());
            }
            if best.count == 0 {
                return refuse("train.keep_best.count: expected at least 1".into());
            }
        }
        let rate = self.learning_rate(1)?;
        if !(rate.is_finite() && rate > 0.) {
            return refuse(format!("the learning rate: expected a positive number, got {rate}"));
        }
        Ok(())
    }

    /// The learning rate of `ranks` ranks before its schedule.
    ///
    /// # Errors
    /// [`Error::Config`] when the file gives none.
    pub fn learning_rate(&self, ranks: usize) -> Result<f64> {
        let batch = (ranks * self.data.batch_size) as f64 * self.train.accumulate as f64;
        self.train.learning_rate.or_else(|| self.base_learning_rate.map(|base| base * batch)).ok_or_else(
            || {
                Error::config(
                    &self.path,
                    "no learning rate: give train.learning_rate, or model.base_learning_rate",
                )
            },
        )
    }

    /// The resolved, complete text: what `config.yaml` of a run holds.
    pub fn to_text(&self) -> String {
        config::to_text(&self.tree)
    }

    /// Says in a classifier's config what it is made of, where that is its diffusion model's to say: a run can be read
    /// without that model.
    ///
    /// # Errors
    /// As [`ClassifierConfig::network`](ldm_pipelines::ClassifierConfig::network).
    pub fn complete(mut self) -> Result<Self> {
        if let ModelConfig::Classifier(classifier) = &mut self.model {
            let network = classifier.network().map_err(|error| match error {
                Error::Invalid(why) => Error::config(&self.path, format!("model.params.{why}")),
                other => other,
            })?;
            let tree = serde_yaml::to_value(&network).expect("plain numbers and words");
            self.tree["model"]["params"]["classifier_config"] = tree;
            classifier.classifier_config = Some(network);
        }
        Ok(self)
    }

    /// The text of the model alone, for the folder that is handed on; paths of weights are left out, since they are all
    /// in the file beside.
    pub fn model_text(&self) -> String {
        let mut model = self.tree["model"].clone();
        for key in ["ckpt_path", "diffusion_path", "diffusion_ckpt_path"] {
            drop_key(&mut model, key);
        }
        let mut tree = serde_yaml::Mapping::new();
        tree.insert("model".into(), model);
        config::to_text(&Value::Mapping(tree))
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether it is a first stage that is trained against a discriminator.
fn has_discriminator(model: &ModelConfig) -> bool {
    let loss = model.first_stage().map(|config| LossConfig::of(&config));
    matches!(loss, Some(Ok(LossConfig::Kl(_) | LossConfig::Vq(_))))
}
