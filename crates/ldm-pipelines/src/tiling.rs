//! Which tiles a model samples and decodes in.

use ldm_core::{Error, Result, Tiles};

use crate::{ConditioningKind, LatentDiffusion};

/// The tiles of one sample's way.
#[derive(Debug)]
pub(crate) struct Tiling {
    /// For the network: neighbors share half, as in CompVis' super-resolution notebook.
    pub(crate) denoise: Tiles,
    /// For the decoder, which sees what its neighbors see: they share a quarter, as in diffusers.
    pub(crate) decode: Tiles,
}

impl Tiling {
    /// Tiles of `side` pixels for latents of `[h, w]`.
    pub(crate) fn new(model: &LatentDiffusion, size: [i64; 2], side: i64) -> Result<Self> {
        let factor = model.first_stage.factor();
        let multiple = factor * model.unet.factor();
        if side < multiple || side % multiple != 0 {
            let below = (side / multiple * multiple).max(multiple);
            return Err(Error::invalid(format!(
                "tile: this model's are multiples of {multiple} pixels (nearest: {below} and {}), got: {side}",
                below + multiple
            )));
        }
        let side = side / factor;
        let needs = ConditioningKind::of(&model.config);
        if needs == ConditioningKind::Layout && size.iter().any(|length| *length > side) {
            return Err(Error::invalid(
                "tile: boxes say where things are in the whole image, and a tile cannot be told them",
            ));
        }
        Ok(Self { denoise: Tiles::new(size, side, side / 2), decode: Tiles::new(size, side, side / 4) })
    }
}
