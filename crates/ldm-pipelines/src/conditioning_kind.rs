//! Kinds of conditioning.

use std::fmt;

use ldm_conditioning::ConditionerConfig;

use crate::LatentDiffusionConfig;
use crate::diffusion_config::ConditioningKey;

/// The kind of a model's conditioning: the inputs that a prompt must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditioningKind {
    /// No condition.
    Unconditional,
    /// [`Prompt::class`](ldm_core::Prompt::class).
    Class,
    /// [`Prompt::text`](ldm_core::Prompt::text).
    Text,
    /// [`Prompt::layout`](ldm_core::Prompt::layout), or its tokens.
    Layout,
    /// [`Prompt::image`](ldm_core::Prompt::image) of the latent's size.
    LowResolution,
    /// [`Prompt::mask`](ldm_core::Prompt::mask), one-hot, with a channel for each class.
    SemanticMap,
    /// [`Prompt::image`](ldm_core::Prompt::image) and [`Prompt::mask`](ldm_core::Prompt::mask).
    Inpainting,
    /// [`Prompt::image`](ldm_core::Prompt::image), [`Prompt::mask`](ldm_core::Prompt::mask) and
    /// [`Prompt::text`](ldm_core::Prompt::text).
    TextInpainting,
    /// [`Prompt::image`](ldm_core::Prompt::image), through CLIP.
    ClipImage,
    /// [`Prompt::embedding`](ldm_core::Prompt::embedding).
    Embedding,
    /// Both [`hybrid_parts`](Self::hybrid_parts) of a `hybrid` conditioner.
    Hybrid,
}

impl ConditioningKind {
    /// The kind of the model of `config`.
    pub fn of(config: &LatentDiffusionConfig) -> Self {
        match (config.conditioning_key(), &config.cond_stage_config) {
            (None, _) => Self::Unconditional,
            (Some(ConditioningKey::Adm), _)
            | (Some(ConditioningKey::Crossattn), ConditionerConfig::Class(_)) => Self::Class,
            (Some(ConditioningKey::Hybrid), ConditionerConfig::Hybrid(_)) => Self::Hybrid,
            (Some(ConditioningKey::Hybrid), _) => Self::TextInpainting,
            (Some(ConditioningKey::Concat), ConditionerConfig::FirstStage) => Self::Inpainting,
            (Some(ConditioningKey::Concat), other) => Self::concatenated(other),
            (Some(ConditioningKey::Crossattn), other) => Self::attended(other),
        }
    }

    /// The kind of a condition that is concatenated.
    fn concatenated(conditioner: &ConditionerConfig) -> Self {
        match conditioner {
            ConditionerConfig::Spatial(_) => Self::SemanticMap,
            _ => Self::LowResolution,
        }
    }

    /// The kind of a condition that is attended to.
    fn attended(conditioner: &ConditionerConfig) -> Self {
        match conditioner {
            ConditionerConfig::Class(_) => Self::Class,
            ConditionerConfig::Identity => Self::Embedding,
            ConditionerConfig::ClipImage(_) => Self::ClipImage,
            other if other.tokenizer_kind().is_some() => Self::Text,
            _ => Self::Layout,
        }
    }

    /// The kinds of the concatenated and of the attended part of a `hybrid` conditioner.
    pub fn hybrid_parts(config: &LatentDiffusionConfig) -> Option<[Self; 2]> {
        let ConditionerConfig::Hybrid(hybrid) = &config.cond_stage_config else { return None };
        Some([Self::concatenated(&hybrid.c_concat_config), Self::attended(&hybrid.c_crossattn_config)])
    }
}

impl fmt::Display for ConditioningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unconditional => "nothing",
            Self::Class => "a class",
            Self::Text => "a text",
            Self::Layout => "a layout of boxes",
            Self::LowResolution => "a low-resolution image",
            Self::SemanticMap => "a semantic map",
            Self::Inpainting => "an image and a mask",
            Self::TextInpainting => "an image, a mask and a text",
            Self::ClipImage => "an image through CLIP",
            Self::Embedding => "embeddings",
            Self::Hybrid => "an image or a map, and another condition",
        })
    }
}

/// The methods of CompVis' conditioners that `cond_stage_forward` may name (`ddpm.py:561`). Each encodes a condition, and
/// `encode` is `forward` where a conditioner has both (`encoders/modules.py`), so the name changes nothing.
pub(crate) fn methods(conditioner: &ConditionerConfig) -> &'static [&'static str] {
    match conditioner {
        ConditionerConfig::Class(_) | ConditionerConfig::Identity | ConditionerConfig::Unconditional => {
            &["forward"]
        }
        ConditionerConfig::FirstStage => &["encode"],
        _ => &["encode", "forward"],
    }
}
