//! Latents of a batch, and the timesteps of validation.

use ldm_autoencoder::{FirstStageConfig, Posterior};
use ldm_core::{NoiseSource, Result, upload};
use ldm_data::Batch;
use ldm_pipelines::LatentDiffusion;
use tch::{Kind, Tensor};

use super::input::input_images;

/// Samples scaled latents of a batch, `[B, C, h, w]`, from its images or from their cached moments.
///
/// # Errors
/// As [`input_images`].
pub(crate) fn latents(model: &LatentDiffusion, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Tensor> {
    let Some(moments) = &batch.latents else {
        // In the memory format of cached latents, since the rounding of the U-Net depends on it.
        return Ok(model.encode(&images(model, batch)?, noise).contiguous());
    };
    let moments = upload(moments, model.vs().device());
    let posterior = if moments.size()[1] == model.config.channels {
        Posterior::Point(moments)
    } else {
        Posterior::from_moments(&moments)
    };
    Ok(posterior.sample(noise) * model.scale_factor)
}

/// The images of a batch as the first stage takes them, on its device.
fn images(model: &LatentDiffusion, batch: &Batch) -> Result<Tensor> {
    Ok(upload(&input_images(model.input(), batch)?, model.vs().device()))
}

/// Encodes the images of a batch into moments, as [`crate::LatentEncoder::latent_moments`].
pub(crate) fn latent_moments(model: &LatentDiffusion, batch: &Batch) -> Result<Tensor> {
    Ok(match model.posterior(&images(model, batch)?) {
        Posterior::Gaussian { mean, logvar } => Tensor::cat(&[mean, logvar], 1).to_kind(Kind::Float),
        Posterior::Point(point) => point.to_kind(Kind::Float),
    })
}

/// `[B]` evenly spaced timesteps below `steps`, one per sample of `x`.
pub(crate) fn evenly_spaced_timesteps(steps: usize, x: &Tensor) -> Tensor {
    let size = x.size()[0];
    let t =
        (Tensor::arange(size, (Kind::Int64, x.device())) * steps as i64).divide_scalar_mode(size, "floor");
    t.to_kind(Kind::Int64)
}

/// The number of values that the input and the output of a convolution have while an image of `size` is encoded.
pub(crate) fn encoded(first_stage: &FirstStageConfig, [height, width]: [i64; 2]) -> i64 {
    let channels = first_stage.network().map_or(0, |network| 2 * network.ch);
    channels * height * width
}
