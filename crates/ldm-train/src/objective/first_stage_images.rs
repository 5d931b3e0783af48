//! Images that a first stage is trained on.

use ldm_autoencoder::{FirstStageConfig, ImageKind};
use ldm_core::{Error, Result};
use ldm_data::Batch;
use tch::Tensor;

use crate::latents::one_hot;

/// Checks that the model can be compared with its images: the same channels on both sides, those of an image file or of
/// label maps.
pub(crate) fn check_images(config: &FirstStageConfig) -> Result<()> {
    let (input, net) = (config.input(), config.network().expect("checked by LossConfig::of"));
    let refuse = |message: String| Err(Error::invalid(format!("model.params.{message}")));
    match config.image_key() {
        Some("image" | "segmentation") | None => {}
        Some(got) => return refuse(format!("image_key: expected image or segmentation, got {got}")),
    }
    if net.give_pre_end {
        return refuse("ddconfig.give_pre_end: expected false in training, got true".into());
    }
    if net.out_ch != net.in_channels {
        let (taken, made) = (net.in_channels, net.out_ch);
        return refuse(format!("ddconfig.out_ch: expected in_channels, {taken}, got {made}"));
    }
    match input {
        ImageKind::LabelMap(_) => Ok(()),
        ImageKind::Pixels(count) if (1..=4).contains(&count) => Ok(()),
        ImageKind::Pixels(count) => refuse(format!(
            "ddconfig.in_channels: expected 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGBA) channels, got {count}; try \
             image_key: segmentation for label maps"
        )),
    }
}

/// The least number of activations of a pixel that are kept for the backward pass: the inputs of the two convolutions of
/// each residual block at full resolution.
pub(crate) fn activations(config: &FirstStageConfig) -> i64 {
    // The decoder has one block more than the encoder.
    config.network().map_or(0, |net| 2 * (2 * net.num_res_blocks + 1) * net.ch + net.in_channels)
}

/// The condition of a discriminator with `disc_conditional`, of `channels`: the one-hot label map of each image, or
/// without one planes of its one-hot class.
///
/// # Shapes
/// - `like`: `[B, C, H, W]`; returns `[B, channels, H, W]` on its device
///
/// # Errors
/// [`Error::Data`] when the data have neither, or labels beyond `channels`.
pub(crate) fn discriminator_condition(batch: &Batch, channels: i64, like: &Tensor) -> Result<Tensor> {
    let name = batch.names.first().map_or("the data", String::as_str);
    let refuse = |error: Error| Error::data(name, format!("disc_conditional: {error}"));
    let size = like.size();
    if let Some(map) = &batch.label_map {
        return one_hot("label map", map, channels, like.device()).map_err(refuse);
    }
    let class = batch.prompt.class.as_ref().ok_or_else(|| {
        Error::data(name, "disc_conditional: expected label maps or classes in the data, got none")
    })?;
    let planes = one_hot("class", &class.view([-1, 1, 1]), channels, like.device()).map_err(refuse)?; // [B, K, 1, 1]
    Ok(planes.expand([size[0], channels, size[2], size[3]], false))
}
