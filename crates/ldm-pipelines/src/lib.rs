//! Latent diffusion models: load, encode, decode, generate, convert.
//!
//! [`LatentDiffusion`] owns a first stage, a U-Net, a conditioner and a noise schedule, built from a config and loaded
//! strictly; [`generate`] samples from it. [`Model::open`] takes a run directory, a model folder, a diffusers folder,
//! or a checkpoint file, with or without its config; [`convert`] converts between them. A [`Classifier`] of noisy
//! latents guides samples to a class, and a [`ControlNetModel`] steers them by an image. Nothing here depends on training.

mod classifier;
mod classifier_config;
mod codebook_ids;
mod compatibility;
mod condition;
mod condition_schedule;
mod conditioning_kind;
mod config;
mod control_net_model;
mod convert;
mod decode;
mod detect;
mod diffusers;
mod diffusion_config;
mod first_stage_run;
mod latent_diffusion;
pub mod lora;
mod memory;
mod open;
mod pixel_diffusion;
mod sample;
mod source;
mod tokenizer;
pub mod watermark;

pub use classifier::Classifier;
pub use classifier_config::ClassifierConfig;
pub use conditioning_kind::ConditioningKind;
pub use config::{ModelConfig, ModelFile};
pub use control_net_model::ControlNetModel;
pub use convert::{CheckpointMerge, ConvertOptions, ConvertTarget, check_replaceable, convert};
pub use diffusers::{DiffusersScheduler, Thresholding};
pub use diffusion_config::{ConcatKey, ConditioningKey, LatentDiffusionConfig, LossType, UNetSection};
pub use first_stage_run::resolve_first_stage;
pub use latent_diffusion::{LatentDiffusion, SCHEDULE_BUFFERS};
pub use open::{FirstStageModel, LoadOptions, Model};
pub use sample::{
    ClassifierFreeGuidance, ClassifierGuidance, Conditioned, Control, DeepCache, GenerateRequest, Generated,
    Guidance, GuidingClassifier, Init, InitImage, Interval, LatentRgb, LogProbability, Network,
    QuantizedDenoiser, Sampling, SamplingOptions, TileSize, Variation, VariationStrength, generate,
};
pub use source::{ModelSource, weights_file};
pub use tokenizer::{export_tokenizer, find_tokenizer};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
