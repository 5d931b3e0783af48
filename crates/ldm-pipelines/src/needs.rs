//! What a prompt has to hold for a model.

use std::fmt;

use ldm_conditioning::ConditionerConfig;

use crate::LatentDiffusionConfig;
use crate::diffusion_config::ConditioningKey;

/// What a prompt has to hold for a model to be sampled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: the model is unconditional.
    Nothing,
    /// [`Prompt::class`](ldm_core::Prompt::class).
    Class,
    /// [`Prompt::text`](ldm_core::Prompt::text).
    Text,
    /// [`Prompt::layout`](ldm_core::Prompt::layout), or its tokens.
    Layout,
    /// [`Prompt::image`](ldm_core::Prompt::image), as large as the latent.
    Picture,
    /// [`Prompt::mask`](ldm_core::Prompt::mask) with a channel a class.
    Map,
    /// [`Prompt::image`](ldm_core::Prompt::image) and [`Prompt::mask`](ldm_core::Prompt::mask).
    Filling,
    /// These, and [`Prompt::text`](ldm_core::Prompt::text).
    FillingByText,
    /// [`Prompt::embedding`](ldm_core::Prompt::embedding).
    Embedding,
}

impl Needs {
    /// What the model of `config` needs.
    pub fn of(config: &LatentDiffusionConfig) -> Self {
        match (config.conditioning_key(), &config.cond_stage_config) {
            (None, _) => Self::Nothing,
            (Some(ConditioningKey::Adm), _)
            | (Some(ConditioningKey::Crossattn), ConditionerConfig::Class(_)) => Self::Class,
            (Some(ConditioningKey::Hybrid), _) => Self::FillingByText,
            (Some(ConditioningKey::Concat), ConditionerConfig::FirstStage) => Self::Filling,
            (Some(ConditioningKey::Concat), ConditionerConfig::Spatial(_)) => Self::Map,
            (Some(ConditioningKey::Concat), _) => Self::Picture,
            (Some(ConditioningKey::Crossattn), ConditionerConfig::Identity) => Self::Embedding,
            (Some(ConditioningKey::Crossattn), other) if other.tokenizer_kind().is_some() => Self::Text,
            (Some(ConditioningKey::Crossattn), _) => Self::Layout,
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Class => "a class",
            Self::Text => "a text",
            Self::Layout => "a layout of boxes",
            Self::Picture => "a small picture",
            Self::Map => "a map of classes",
            Self::Filling => "a picture and a mask",
            Self::FillingByText => "a picture, a mask and a text",
            Self::Embedding => "embeddings",
        })
    }
}
