//! The tiles a model samples and decodes in.

use ldm_core::{Error, Result, Tiles};

use crate::{ConditioningKind, LatentDiffusion};

/// The tiles of large images, for the network and for the decoder.
#[derive(Debug)]
pub(crate) struct Tiling {
    /// For the network: neighbors share half, as in CompVis' super-resolution notebook.
    pub(crate) denoise: Tiles,
    /// For the decoder: neighbors share a quarter, as in diffusers.
    pub(crate) decode: Tiles,
}

impl Tiling {
    /// Tiles of `side` pixels for latents of `[h, w]`, with the weights of [`Tiles::with_tie_breaker`].
    pub(crate) fn new(
        model: &LatentDiffusion,
        size: [i64; 2],
        side: i64,
        tie: Option<[f64; 2]>,
    ) -> Result<Self> {
        let factor = model.first_stage.factor();
        let multiple = factor * model.unet.factor();
        if side < multiple || side % multiple != 0 {
            let below = (side / multiple * multiple).max(multiple);
            return Err(Error::invalid(format!(
                "tile: expected a multiple of {multiple} pixels (nearest: {below} and {}), got {side}",
                below + multiple
            )));
        }
        let side = side / factor;
        let conditioning = ConditioningKind::of(&model.config);
        if conditioning == ConditioningKind::Layout && size.iter().any(|length| *length > side) {
            return Err(Error::invalid(
                "tile: expected a model without a layout, whose boxes refer to the whole image, got a layout model",
            ));
        }
        let [denoise, decode] = [2, 4].map(|part| Tiles::new(size, side, side / part).with_tie_breaker(tie));
        Ok(Self { denoise, decode })
    }
}
