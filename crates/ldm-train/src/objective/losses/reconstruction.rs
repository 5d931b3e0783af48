//! The loss of a first stage without perceptual and adversarial terms.

use ldm_autoencoder::Bottleneck;
use tch::{Kind, Tensor};

use super::loss_config::ReconstructionLoss;
use crate::objective::Loss;

/// The latent's regularization: the KL divergence, summed over an image and averaged over the batch, or the codebook
/// loss.
pub(crate) fn latent_loss(bottleneck: &Bottleneck) -> Tensor {
    match bottleneck {
        Bottleneck::Kl(posterior) => posterior.kl().to_kind(Kind::Float).mean(Kind::Float),
        Bottleneck::Vq(quantized) => quantized.loss.to_kind(Kind::Float),
    }
}

/// The loss of pixels and the latent's regularization.
pub(crate) fn reconstruction_loss(
    config: &ReconstructionLoss,
    image: &Tensor,
    reconstruction: &Tensor,
    bottleneck: &Bottleneck,
) -> Loss {
    let difference = config.pixel_loss.of(&(reconstruction - image));
    let per_pixel = difference.mean(Kind::Float);
    let latent = latent_loss(bottleneck);
    let (name, total) = match bottleneck {
        Bottleneck::Vq(_) => ("quant_loss", &per_pixel + &latent * config.codebook_weight),
        Bottleneck::Kl(_) => {
            let sum = difference.sum(Kind::Float) / image.size()[0] as f64;
            ("kl_loss", sum + &latent * config.kl_weight)
        }
    };
    let parts = vec![("rec_loss", per_pixel.detach()), (name, latent.detach()), ("loss", total.detach())];
    Loss { total, parts }
}
