//! Conditioners: from a [`Prompt`](ldm_core::Prompt) to a [`Conditioning`](ldm_core::Conditioning), the input of the
//! U-Net.
//!
//! - [`Conditioner`] is the trait; [`ConditionerConfig`] reads CompVis' `cond_stage_config` and builds one.
//! - [`Unconditional`] has no condition; [`ClassEmbedder`] embeds a class as one token.
//! - [`BertEmbedder`], [`TransformerEmbedder`] and [`ClipTextEmbedder`] take texts or tokens; [`Tokenizer`]
//!   converts texts to tokens.
//! - [`ClipTextPooled`] and [`ClipImageEmbedder`] embed a text or an image as one vector.
//! - [`LayoutTokens`] converts boxes to tokens, for an embedder without a tokenizer.
//! - [`SpatialRescaler`] resizes a map to concatenate with the latent; [`Identity`] passes on an image or embeddings.
//! - [`TextOptions`]: weighted prompts, long prompts and CLIP skip; [`TextualInversion`]: learned words.
//! - [`Clip`] embeds texts and images in one space, to score how well they match.
//! - [`HybridConditioner`] concatenates what one conditioner makes of a prompt and attends to what another makes of it.
//! - [`SafetyChecker`] compares images with concepts, as that of Stable Diffusion.
//! - [`PromptDropout`] replaces prompts by the null prompt, to train for classifier-free guidance.

mod bert;
mod checks;
mod class;
mod clip;
mod conditioner;
mod config;
mod config_serde;
mod diffusers;
mod dropout;
mod hybrid;
mod identity;
mod keys;
mod layout;
mod spatial;
mod text_prompt;
mod tokenizer;
mod tokens;

pub use bert::transformer::{TransformerConfig, TransformerEmbedder};
pub use bert::{BertConfig, BertEmbedder};
pub use class::{ClassConfig, ClassEmbedder};
pub use clip::Clip;
pub use clip::openai_config::{ClipImageConfig, ClipTextPooledConfig, OpenAiSizes};
pub use clip::pooled::{ClipImageEmbedder, ClipTextPooled};
pub use clip::safety::{SafetyChecker, SafetyScores};
pub use clip::text::ClipTextEmbedder;
pub use clip::text_config::{Activation, ClipTextConfig};
pub use conditioner::{Conditioner, Unconditional};
pub use config::ConditionerConfig;
pub use diffusers::{from_diffusers, to_diffusers};
pub use dropout::PromptDropout;
pub use hybrid::{HybridConditioner, HybridConfig};
pub use identity::Identity;
pub use keys::diffusers_layout;
pub use layout::LayoutTokens;
pub use spatial::{RescaleMethod, SpatialConfig, SpatialRescaler};
pub use text_prompt::embedding::{EmbeddingFile, TextualInversion};
pub use text_prompt::options::{PromptSyntax, TextOptions};
pub use text_prompt::weights::{has_syntax, has_weights};
pub use tokenizer::kind::TokenizerKind;
pub use tokenizer::{Encoding, Tokenizer};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
