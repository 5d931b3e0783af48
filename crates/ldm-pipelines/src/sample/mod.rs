//! Sampling: from prompts and seeds to images.

mod classifier_guidance;
mod control;
mod deep_cache;
mod generate;
mod guidance;
mod init;
mod interval;
mod latent_rgb;
mod network;
mod options;
mod quantized_denoiser;
mod tiling;
mod variation_strength;

pub use classifier_guidance::{ClassifierGuidance, GuidingClassifier, LogProbability};
pub use control::Control;
pub use deep_cache::DeepCache;
pub use generate::{GenerateRequest, Generated, Sampling, generate};
pub use guidance::{ClassifierFreeGuidance, Conditioned, Guidance};
pub use init::{Init, InitImage, Variation};
pub use interval::Interval;
pub use latent_rgb::LatentRgb;
pub use network::Network;
pub use options::{SamplingOptions, TileSize};
pub use quantized_denoiser::QuantizedDenoiser;
pub use variation_strength::VariationStrength;
