//! A map beside the latent: made smaller, and its channels fewer.

use ldm_core::nn::conv2d_1x1;
use ldm_core::{Conditioning, Error, Prompt, Result};
use serde::{Deserialize, Serialize};
use tch::nn::{self, Conv2D};
use tch::{Device, Kind, Tensor};

use crate::Conditioner;
use crate::sizes::at_least_one;

/// A spatial rescaler, under the reference's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpatialConfig {
    /// How often the map is rescaled.
    pub n_stages: i64,
    /// How values between pixels are found.
    pub method: Interpolation,
    /// What a stage multiplies the sides by.
    pub multiplier: f64,
    /// Channels of the map: classes where it is one-hot.
    pub in_channels: i64,
    /// Channels after a convolution of kernel 1; without it there is none, and the channels stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_channels: Option<i64>,
    /// Whether the convolution has a bias.
    pub bias: bool,
}

impl Default for SpatialConfig {
    fn default() -> Self {
        Self {
            n_stages: 1,
            method: Interpolation::default(),
            multiplier: 0.5,
            in_channels: 3,
            out_channels: None,
            bias: false,
        }
    }
}

/// PyTorch's ways of `torch.nn.functional.interpolate`, as far as the reference names them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// The pixel at the rounded-down place.
    Nearest,
    /// Of sequences; PyTorch refuses it for maps, and so is it refused here.
    Linear,
    /// Of the four pixels around, without antialiasing.
    #[default]
    Bilinear,
    /// Of volumes; PyTorch refuses it for maps, and so is it refused here.
    Trilinear,
    /// Of the sixteen pixels around (Keys 1981, a = −0.75), without antialiasing.
    Bicubic,
    /// The mean of the pixels that a new pixel covers.
    Area,
}

/// Rescales a map, `n_stages` times by `multiplier`, and maps its channels: the layout of an image by classes, laid
/// beside the latent.
///
/// CompVis `encoders/modules.py:106` `SpatialRescaler`.
#[derive(Debug)]
pub struct SpatialRescaler {
    n_stages: i64,
    method: Interpolation,
    multiplier: f64,
    in_channels: i64,
    channel_mapper: Option<Conv2D>, // `channel_mapper.weight` [out, in, 1, 1]
    device: Device,
}

impl SpatialRescaler {
    /// The rescaler; with `out_channels` it has weights, at `vs / "channel_mapper"`.
    ///
    /// # Errors
    /// When a size cannot be, or the method is none for maps.
    pub fn new(vs: &nn::Path, config: &SpatialConfig) -> Result<Self> {
        let SpatialConfig { n_stages, method, multiplier, in_channels, out_channels, bias } = *config;
        let refuse = |message| Err(Error::invalid(format!("spatial conditioning: {message}")));
        at_least_one(
            "spatial conditioning",
            &[("in_channels", in_channels), ("out_channels", out_channels.unwrap_or(1))],
        )?;
        if n_stages < 0 {
            return refuse(format!("n_stages must be at least 0, got {n_stages}"));
        }
        if !(multiplier.is_finite() && multiplier > 0.) {
            return refuse(format!("multiplier must be above 0, got {multiplier}"));
        }
        if matches!(method, Interpolation::Linear | Interpolation::Trilinear) {
            let got = if method == Interpolation::Linear { "linear" } else { "trilinear" };
            return refuse(format!(
                "method: expected nearest, bilinear, bicubic or area, which are for maps, got {got}"
            ));
        }
        let channel_mapper =
            out_channels.map(|channels| conv2d_1x1(&(vs / "channel_mapper"), in_channels, channels, bias));
        Ok(Self { n_stages, method, multiplier, in_channels, channel_mapper, device: vs.device() })
    }

    fn rescale(&self, x: &Tensor) -> Tensor {
        let scales = [self.multiplier, self.multiplier];
        match self.method {
            Interpolation::Nearest => x.upsample_nearest2d_vec(None::<&[i64]>, &scales[..]),
            Interpolation::Bilinear => x.upsample_bilinear2d_vec(None::<&[i64]>, false, &scales[..]),
            Interpolation::Bicubic => x.upsample_bicubic2d_vec(None::<&[i64]>, false, &scales[..]),
            Interpolation::Area => x.adaptive_avg_pool2d(self.smaller(x)),
            Interpolation::Linear | Interpolation::Trilinear => unreachable!("refused by new"),
        }
    }

    /// The sides after one stage, rounded down.
    fn smaller(&self, x: &Tensor) -> [i64; 2] {
        let (_, _, height, width) = x.size4().expect("checked by condition");
        [height, width].map(|side| (side as f64 * self.multiplier).floor() as i64)
    }

    fn check(&self, what: &str, map: &Tensor) -> Result<()> {
        let size = map.size();
        let wrong = |expected: String| Err(Error::Shape { what: what.into(), expected, got: size.clone() });
        let [_, channels, height, width] = size[..] else { return wrong("[B, K, H, W]".into()) };
        if channels != self.in_channels {
            return wrong(format!("[B, {}, H, W]", self.in_channels));
        }
        let smallest = (0..self.n_stages)
            .fold(height.min(width), |side, _| (side as f64 * self.multiplier).floor() as i64);
        if smallest < 1 {
            return wrong(format!("sides of at least 1 after {} times {}", self.n_stages, self.multiplier));
        }
        Ok(())
    }
}

impl Conditioner for SpatialRescaler {
    /// # Shapes
    /// - `prompt.mask`: `[B, K, H, W]`, one-hot, or else `prompt.image`; `K` is `in_channels`
    /// - returns concat `[B, out_channels, h, w]`
    fn condition(&self, prompt: &Prompt, _train: bool) -> Result<Conditioning> {
        let (what, map) = match (&prompt.mask, &prompt.image) {
            (Some(mask), _) => ("mask", mask),
            (None, Some(image)) => ("image", image),
            (None, None) => return Err(Error::MissingInput("mask")),
        };
        self.check(what, map)?;
        let kind = self.channel_mapper.as_ref().map_or(Kind::Float, |conv| conv.ws.kind());
        let map = map.to_device(self.device).to_kind(kind);
        let map = (0..self.n_stages).fold(map, |map, _| self.rescale(&map));
        let map = self.channel_mapper.iter().fold(map, |map, conv| map.apply(conv));
        Ok(Conditioning { concat: Some(map), ..Conditioning::default() })
    }

    fn null_prompt(&self, _batch: i64) -> Result<Prompt> {
        Err(Error::invalid(
            "this model is conditioned on a map, of which none means nothing, which guidance and conditioning \
             dropout need",
        ))
    }
}
