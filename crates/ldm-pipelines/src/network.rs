//! The network as a denoiser asks it.

use ldm_core::Tiles;
use ldm_schedulers::{NoiseLevel, Parameterization};
use ldm_unet::{ConditioningCache, UNet};
use tch::{Kind, Tensor};

/// A network, what it predicts, and whether it is asked for the whole sample at once.
#[derive(Debug, Clone)]
pub struct Network<'a> {
    pub(crate) unet: &'a UNet,
    pub(crate) parameterization: Parameterization,
    tiles: Option<Tiles>,
}

impl<'a> Network<'a> {
    /// Asked for the whole sample.
    pub fn new(unet: &'a UNet, parameterization: Parameterization) -> Self {
        Self { unet, parameterization, tiles: None }
    }

    /// Asked tile by tile, in the memory of one; what is joined to the sample is cut likewise, and all else is the same
    /// for each (CompVis `ddpm.py:890`).
    ///
    /// Predictions are blended at every step, so that tiles agree before they are images.
    #[must_use]
    pub fn in_tiles(self, tiles: Tiles) -> Self {
        Self { tiles: Some(tiles), ..self }
    }

    /// The network's answer in f32, whatever its own dtype.
    pub(crate) fn predict(&self, x: &Tensor, at: NoiseLevel, cond: &ConditioningCache) -> Tensor {
        let t = Tensor::full([x.size()[0]], at.t, (Kind::Float, x.device()));
        let ask = |x: &Tensor, cond: &ConditioningCache| {
            self.unet.forward_cached(x, &t, cond, false).to_kind(Kind::Float)
        };
        match &self.tiles {
            None => ask(x, cond),
            Some(tiles) => tiles.blend(1, |tile| ask(&tile.of(x), &cond.part(tile))),
        }
    }
}
