//! The network as denoisers evaluate it.

use ldm_core::{Conditioning, Tile, Tiles};
use ldm_schedulers::{NoiseLevel, Parameterization};
use ldm_unet::{ConditioningCache, Evaluation, Recordings, UNet};
use tch::{Kind, Tensor};

use super::control::PreparedControl;
use super::deep_cache::ReusedFeatures;

/// A network with its parameterization, evaluated on the whole sample or in tiles.
#[derive(Debug, Clone)]
pub struct Network<'a> {
    pub(crate) unet: &'a UNet,
    pub(crate) parameterization: Parameterization,
    controls: &'a [PreparedControl<'a>],
    tiles: Option<Tiles>,
    deep: Option<&'a ReusedFeatures>,
    merged_tokens: f64,
    recordings: Option<&'a Recordings>,
}

/// A conditioning with everything that is constant over the steps: that of the U-Net, and of each ControlNet.
#[derive(Debug)]
pub(crate) struct NetworkConditioning {
    unet: ConditioningCache,
    controls: Vec<ConditioningCache>,
}

impl<'a> Network<'a> {
    /// Evaluated on the whole sample.
    pub fn new(unet: &'a UNet, parameterization: Parameterization) -> Self {
        Self {
            unet,
            parameterization,
            controls: &[],
            tiles: None,
            deep: None,
            merged_tokens: 0.,
            recordings: None,
        }
    }

    /// Evaluated tile by tile, in the memory of one tile; concatenated conditioning and hints are cropped to each tile,
    /// other conditioning is shared (CompVis `ddpm.py:890`).
    ///
    /// Predictions are blended at every step, so that tiles agree before decoding.
    #[must_use]
    pub fn in_tiles(self, tiles: Tiles) -> Self {
        Self { tiles: Some(tiles), ..self }
    }

    /// Steered by ControlNets.
    #[must_use]
    pub(crate) fn steered_by(self, controls: &'a [PreparedControl<'a>]) -> Self {
        Self { controls, ..self }
    }

    /// With deep features that several evaluations share.
    #[must_use]
    pub(super) fn reusing(self, deep: Option<&'a ReusedFeatures>) -> Self {
        Self { deep, ..self }
    }

    /// With this share of the tokens merged around self-attention ([`Evaluation::merged_tokens`]).
    #[must_use]
    pub(super) fn merging_tokens(self, merged_tokens: f64) -> Self {
        Self { merged_tokens, ..self }
    }

    /// With evaluations that are recorded and replayed.
    #[must_use]
    pub(super) fn recorded_in(self, recordings: &'a Recordings) -> Self {
        Self { recordings: Some(recordings), ..self }
    }

    /// [`UNet::precompute`] for all networks.
    pub(crate) fn precompute(&self, cond: &Conditioning) -> NetworkConditioning {
        let controls = self.controls.iter().map(|control| control.precompute(cond)).collect();
        NetworkConditioning { unet: self.unet.precompute(cond), controls }
    }

    /// The network's output, cast to f32.
    pub(crate) fn predict(&self, x: &Tensor, at: NoiseLevel, cond: &NetworkConditioning) -> Tensor {
        match &self.tiles {
            None => self.forward(x, at, &cond.unet, cond, None),
            Some(tiles) => {
                tiles.blend(1, |tile| self.forward(&tile.of(x), at, &cond.unet.part(tile), cond, Some(tile)))
            }
        }
    }

    /// The output for `x`, the sample or a `tile` of it.
    fn forward(
        &self,
        x: &Tensor,
        at: NoiseLevel,
        unet: &ConditioningCache,
        cond: &NetworkConditioning,
        tile: Option<Tile>,
    ) -> Tensor {
        let controls = self.controls.iter().zip(&cond.controls);
        let residuals = controls.filter_map(|(control, cond)| control.residuals(x, at, cond, tile));
        let control = residuals.reduce(|sum, each| sum + each);
        let evaluate = |deep: Option<ldm_unet::DeepFeatures<'_>>| {
            let options = Evaluation { control: control.as_ref(), deep, merged_tokens: self.merged_tokens };
            if let Some(recordings) = self.recordings {
                return recordings.evaluate(self.unet, x, at.t, unet, options);
            }
            let t = Tensor::full([x.size()[0]], at.t, (Kind::Float, x.device()));
            self.unet.evaluate(x, &t, unet, options)
        };
        let y = match self.deep {
            None => evaluate(None),
            Some(deep) => deep.evaluate(x.size()[0], |features| evaluate(Some(features))),
        };
        y.to_kind(Kind::Float)
    }
}
