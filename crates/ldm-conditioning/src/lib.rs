//! What the U-Net is conditioned on: from a [`Prompt`](ldm_core::Prompt), what a person said, to a
//! [`Conditioning`](ldm_core::Conditioning), what the network is told.
//!
//! - [`Conditioner`] is the one trait; [`ConditionerConfig`] reads the reference's `cond_stage_config` and builds it.
//! - [`Unconditional`] says nothing; [`ClassEmbedder`] embeds a class as one token.
//! - [`PromptDropout`] replaces prompts by the one that says nothing: what classifier-free guidance is trained with.

mod class;
mod conditioner;
mod config;
mod dropout;

pub use class::{ClassConfig, ClassEmbedder};
pub use conditioner::{Conditioner, Unconditional};
pub use config::ConditionerConfig;
pub use dropout::PromptDropout;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
