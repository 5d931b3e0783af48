//! The residual block.

use ldm_core::Result;
use ldm_core::nn::{Added, GroupNorm, Linear, linear};
use tch::Tensor;
use tch::nn::Path;

use crate::conv_nd::{ConvNd, ConvSizes};
use crate::parameters::ParameterNames;
use crate::resample::Direction;

/// Eps of every group norm except in transformers (`diffusionmodules/util.py:202`).
pub(crate) const EPS: f64 = 1e-5;

/// Sizes of a [`ResBlock`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ResPlan {
    pub(crate) dims: i64,
    pub(crate) channels_in: i64,
    pub(crate) channels_out: i64,
    pub(crate) time_channels: i64,
    pub(crate) scale_shift: bool,
    pub(crate) resample: Option<Direction>,
    pub(crate) dropout: f64,
}

impl ResPlan {
    fn emb_channels(&self) -> i64 {
        if self.scale_shift { 2 * self.channels_out } else { self.channels_out }
    }

    fn conv(&self, channels_in: i64, kernel: i64) -> ConvSizes {
        ConvSizes { dims: self.dims, channels_in, channels_out: self.channels_out, kernel }
    }

    pub(crate) fn parameters(&self, list: &mut ParameterNames) {
        list.within("in_layers", |list| {
            list.norm(0, self.channels_in);
            list.conv(2, self.conv(self.channels_in, 3));
        });
        list.within("emb_layers", |list| list.linear(1, self.time_channels, self.emb_channels()));
        list.within("out_layers", |list| {
            list.norm(0, self.channels_out);
            list.conv(3, self.conv(self.channels_out, 3));
        });
        if self.channels_in != self.channels_out {
            list.conv("skip_connection", self.conv(self.channels_in, 1));
        }
    }
}

/// Two convolutions around the time embedding, with a residual connection; initialized as the identity.
///
/// CompVis `openaimodel.py:163` `ResBlock`.
#[derive(Debug)]
pub(crate) struct ResBlock {
    in_norm: GroupNorm,
    in_conv: ConvNd,
    emb: Linear,
    out_norm: GroupNorm,
    out_conv: ConvNd,
    skip: Option<ConvNd>,
    scale_shift: bool,
    resample: Option<Direction>,
    dropout: f64,
}

impl ResBlock {
    pub(crate) fn new(vs: &Path, plan: &ResPlan) -> Result<Self> {
        let (channels_in, channels_out) = (plan.channels_in, plan.channels_out);
        let (in_layers, out_layers) = (vs / "in_layers", vs / "out_layers");
        Ok(Self {
            in_norm: GroupNorm::new(&(&in_layers / 0), channels_in, EPS)?,
            in_conv: ConvNd::new(&(&in_layers / 2), plan.conv(channels_in, 3)),
            emb: linear(&(vs / "emb_layers" / 1), plan.time_channels, plan.emb_channels(), true),
            out_norm: GroupNorm::new(&(&out_layers / 0), channels_out, EPS)?,
            out_conv: ConvNd::zero(&(&out_layers / 3), plan.conv(channels_out, 3)),
            skip: (channels_in != channels_out)
                .then(|| ConvNd::new(&(vs / "skip_connection"), plan.conv(channels_in, 1))),
            scale_shift: plan.scale_shift,
            resample: plan.resample,
            dropout: plan.dropout,
        })
    }

    /// Applies the block.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`, or with 1 or 3 axes for its positions
    /// - `emb`: `[B, 4·model_channels]`, after the SiLU that begins `emb_layers`
    /// - returns `[B, C', h', w']`
    pub(crate) fn forward(&self, x: &Tensor, emb: &Tensor, train: bool) -> Tensor {
        let emb = emb.apply(&self.emb); // [B, C' or 2C']
        let mut x = x.shallow_clone();
        let to_image = (!self.scale_shift).then_some(&emb);
        let h = match self.resample {
            None => self.in_conv.normed_to_norm(&self.in_norm, &x, to_image),
            Some(direction) => {
                let h = direction.plain(&self.in_norm.forward_silu(&x));
                x = direction.plain(&x);
                self.in_conv.to_norm(&h, to_image)
            }
        };
        let x = match &self.skip {
            Some(conv) => x.apply(conv),
            None => x,
        };
        let added = Added { to_image: None, residual: Some(&x) };
        let drops = train && self.dropout > 0.;
        if !(self.scale_shift || drops) {
            return self.out_conv.normed_sum(&self.out_norm, &h, added);
        }
        let scale_shift = self.scale_shift.then_some(&emb); // scale, then shift
        let h = self.out_norm.forward_silu_of(&h, scale_shift);
        self.out_conv.plus(&h.dropout(self.dropout, train), added)
    }
}
