//! The first stage of latent diffusion: images to latents and back (Rombach et al. 2022, §3.1).
//!
//! - [`FirstStage`]: the interface a diffusion model uses: `encode`, `decode`, sizes.
//! - [`Autoencoder`]: CompVis' `AutoencoderKL`, `VQModel` and `VQModelInterface` in one struct. They differ only in
//!   the [`Regularizer`]: a Gaussian [`Posterior`] pulled to N(0, 1), or a [`Codebook`].
//! - [`IdentityFirstStage`]: diffusion in pixels.
//! - [`FirstStageConfig`]: the configuration of any of them, in CompVis' YAML or ours; [`build`] makes the model.
//! - [`infer_config`]: the config inferred from a checkpoint's names and shapes. [`from_diffusers`], [`to_diffusers`],
//!   [`diffusers_layout`]: conversion from and to diffusers' `AutoencoderKL` and `VQModel`.
//!
//! Weights have exactly CompVis' names below the path given to [`build`]: `encoder.down.0.block.0.norm1.weight`,
//! `quant_conv.weight`, `quantize.embedding.weight`. Latents are not scaled here; the diffusion model owns the scale
//! factor. A channels_last input stays channels_last through every layer.

mod attention;
mod autoencoder;
mod build;
mod checks;
mod codebook;
mod codebook_update;
mod config;
mod decoder;
mod detect;
mod diffusers;
mod encoder;
mod encoder_config;
mod first_stage;
mod identity;
mod image_kind;
mod keys;
mod layer_context;
mod mid_block;
mod posterior;
mod remap;
mod resample;
mod resnet;

pub use autoencoder::{Autoencoder, Bottleneck, Reconstruction, Regularizer};
pub use build::build;
pub use codebook::{Codebook, CodebookConfig, Quantized, Usage};
pub use codebook_update::CodebookUpdate;
pub use config::{FirstStageConfig, IdentityConfig, KlConfig, VqConfig};
pub use decoder::Decoder;
pub use detect::infer_config;
pub use diffusers::{from_diffusers, to_diffusers};
pub use encoder::Encoder;
pub use encoder_config::{AttentionType, EncoderConfig};
pub use first_stage::FirstStage;
pub use identity::IdentityFirstStage;
pub use image_kind::ImageKind;
pub use keys::diffusers_layout;
pub use posterior::Posterior;
pub use remap::UnknownIndex;

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
