//! What the U-Net is conditioned on: from a [`Prompt`](ldm_core::Prompt), what a person said, to a
//! [`Conditioning`](ldm_core::Conditioning), what the network is told.
//!
//! - [`Conditioner`] is the one trait; [`ConditionerConfig`] reads the reference's `cond_stage_config` and builds it.
//! - [`Unconditional`] says nothing; [`ClassEmbedder`] embeds a class as one token.
//! - [`BertEmbedder`], [`TransformerEmbedder`] and [`ClipTextEmbedder`] read texts or tokens; [`Tokenizer`] makes
//!   tokens of texts.
//! - [`LayoutTokens`] makes tokens of boxes, for an embedder without a tokenizer.
//! - [`SpatialRescaler`] lays a map beside the latent; [`Identity`] passes on an image or embeddings.
//! - [`Clip`], text and images in one space, says how well they go together.
//! - [`PromptDropout`] replaces prompts by the one that says nothing: what classifier-free guidance is trained with.

mod bert;
mod bert_tokenizer;
mod class;
mod clip;
mod clip_layer;
mod clip_text;
mod clip_text_config;
mod clip_tokenizer;
mod clip_vision;
mod conditioner;
mod config;
mod diffusers;
mod dropout;
mod identity;
mod keys;
mod layout;
mod sizes;
mod spatial;
mod target;
mod token_encoder;
mod tokenizer;
mod tokenizer_export;
mod tokenizer_files;
mod tokenizer_kind;
mod tokens;
mod transformer;

pub use bert::{BertConfig, BertEmbedder};
pub use class::{ClassConfig, ClassEmbedder};
pub use clip::Clip;
pub use clip_text::ClipTextEmbedder;
pub use clip_text_config::{Activation, ClipTextConfig};
pub use conditioner::{Conditioner, Unconditional};
pub use config::ConditionerConfig;
pub use diffusers::{from_diffusers, to_diffusers};
pub use dropout::PromptDropout;
pub use identity::Identity;
pub use keys::diffusers_layout;
pub use layout::LayoutTokens;
pub use spatial::{Interpolation, SpatialConfig, SpatialRescaler};
pub use tokenizer::{Encoding, Tokenizer};
pub use tokenizer_kind::TokenizerKind;
pub use transformer::{TransformerConfig, TransformerEmbedder};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
