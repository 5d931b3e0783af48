//! The identity first stage, for diffusion in pixels.

use ldm_core::Tiles;
use tch::Tensor;

use crate::config::IdentityConfig;
use crate::first_stage::FirstStage;
use crate::image_kind::ImageKind;
use crate::posterior::Posterior;

/// The identity as a first stage, for diffusion in pixels (the paper's LDM-1).
///
/// CompVis `autoencoder.py:426`.
#[derive(Debug, Clone)]
pub struct IdentityFirstStage {
    channels: i64,
}

impl IdentityFirstStage {
    /// Builds the identity of `config`.
    pub fn new(config: &IdentityConfig) -> Self {
        Self { channels: config.channels }
    }
}

impl FirstStage for IdentityFirstStage {
    fn encode(&self, image: &Tensor) -> Posterior {
        Posterior::Point(image.shallow_clone())
    }

    fn encode_tiled(&self, image: &Tensor, _tiles: &Tiles) -> Posterior {
        self.encode(image)
    }

    fn decode(&self, z: &Tensor) -> Tensor {
        z.shallow_clone()
    }

    fn decode_tiled(&self, z: &Tensor, _tiles: &Tiles) -> Tensor {
        z.shallow_clone()
    }

    fn input(&self) -> ImageKind {
        ImageKind::Pixels(self.channels)
    }

    fn output_channels(&self) -> i64 {
        self.channels
    }

    fn factor(&self) -> i64 {
        1
    }

    fn latent_channels(&self) -> i64 {
        self.channels
    }
}
