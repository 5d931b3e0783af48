//! What keeps a latent space in bounds.

use crate::codebook::Codebook;

/// What keeps the latent space in bounds: all that tells CompVis' `AutoencoderKL` from its `VQModel`.
///
/// Rombach et al. 2022, §3.1.
#[derive(Debug)]
pub enum Regularizer {
    /// A small pull toward N(0, 1).
    Kl,
    /// Vector quantization, inside the decoder.
    Vq(Codebook),
}
