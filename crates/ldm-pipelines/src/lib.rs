//! A latent diffusion model, and what one does with it: encode, decode, generate.
//!
//! [`LatentDiffusion`] owns a first stage, a U-Net, a conditioner and a noise schedule, built from a config and
//! loaded strictly; [`generate`] samples from it. [`Model::open`] takes what people have: a run directory, a model
//! folder, a diffusers folder, or a checkpoint file, with its config or without; [`convert`] makes one of another. A
//! [`Classifier`] of noisy latents leads what is sampled to a class. Nothing here knows that training exists.

mod classifier;
mod classifier_config;
mod classifier_guided;
mod compatibility;
mod component;
mod condition;
mod conditioning_kind;
mod config;
mod convert;
mod decode;
mod detect;
mod detect_schedule;
mod diffusers_sampler;
mod diffusers_scheduler;
mod diffusion_config;
mod first_stage_run;
mod folder;
mod generate;
mod guided;
mod init;
mod latent_diffusion;
mod latent_rgb;
pub mod lora;
mod network;
mod open;
mod source;
mod tiling;
mod tokenizer;
pub mod watermark;

pub use classifier::Classifier;
pub use classifier_config::ClassifierConfig;
pub use classifier_guided::{ClassifierGuidance, ClassifierGuided, LogProbability};
pub use conditioning_kind::ConditioningKind;
pub use config::{ModelConfig, ModelFile};
pub use convert::{Converting, Target, convert};
pub use diffusers_scheduler::{DiffusersScheduler, Thresholding};
pub use diffusion_config::{ConcatKey, ConditioningKey, LatentDiffusionConfig, LossType, UNetSection};
pub use first_stage_run::resolve_first_stage;
pub use generate::{Generated, Sampling, generate};
pub use guided::{ClassifierFreeGuidance, Conditioned, Guidance};
pub use init::{Init, InitImage, Variation};
pub use latent_diffusion::{LatentDiffusion, SCHEDULE_BUFFERS};
pub use latent_rgb::LatentRgb;
pub use network::Network;
pub use open::{FirstStageModel, LoadOptions, Model};
pub use source::{ModelSource, weights_file};
pub use tokenizer::{export_tokenizer, find_tokenizer};
