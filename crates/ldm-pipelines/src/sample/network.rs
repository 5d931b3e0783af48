//! The network as denoisers evaluate it.

use ldm_core::Tiles;
use ldm_schedulers::{NoiseLevel, Parameterization};
use ldm_unet::{ConditioningCache, UNet};
use tch::{Kind, Tensor};

/// A network with its parameterization, evaluated on the whole sample or in tiles.
#[derive(Debug, Clone)]
pub struct Network<'a> {
    pub(crate) unet: &'a UNet,
    pub(crate) parameterization: Parameterization,
    tiles: Option<Tiles>,
}

impl<'a> Network<'a> {
    /// Evaluated on the whole sample.
    pub fn new(unet: &'a UNet, parameterization: Parameterization) -> Self {
        Self { unet, parameterization, tiles: None }
    }

    /// Evaluated tile by tile, in the memory of one tile; concatenated conditioning is cropped to each tile, other
    /// conditioning is shared (CompVis `ddpm.py:890`).
    ///
    /// Predictions are blended at every step, so that tiles agree before decoding.
    #[must_use]
    pub fn in_tiles(self, tiles: Tiles) -> Self {
        Self { tiles: Some(tiles), ..self }
    }

    /// The network's output, cast to f32.
    pub(crate) fn predict(&self, x: &Tensor, at: NoiseLevel, cond: &ConditioningCache) -> Tensor {
        let t = Tensor::full([x.size()[0]], at.t, (Kind::Float, x.device()));
        let forward = |x: &Tensor, cond: &ConditioningCache| {
            self.unet.forward_cached(x, &t, cond, false).to_kind(Kind::Float)
        };
        match &self.tiles {
            None => forward(x, cond),
            Some(tiles) => tiles.blend(1, |tile| forward(&tile.of(x), &cond.part(tile))),
        }
    }
}
