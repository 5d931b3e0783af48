//! Rescaled maps, concatenated with the latent.

use ldm_core::nn::{Conv2d, conv2d_1x1};
use ldm_core::{Conditioning, Error, Prompt, Result, upload};
use serde::{Deserialize, Serialize};
use tch::nn;
use tch::{Device, Kind, Tensor};

use crate::Conditioner;
use crate::checks::at_least_one;

/// Configuration of a [`SpatialRescaler`], under CompVis' names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpatialConfig {
    /// Number of rescalings.
    pub n_stages: i64,
    /// Interpolation method.
    pub method: RescaleMethod,
    /// Scale factor of each rescaling.
    pub multiplier: f64,
    /// Channels of the map: the number of classes if it is one-hot.
    pub in_channels: i64,
    /// Channels after a 1×1 convolution; without it there is no convolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_channels: Option<i64>,
    /// Give the convolution a bias.
    pub bias: bool,
}

impl Default for SpatialConfig {
    fn default() -> Self {
        Self {
            n_stages: 1,
            method: RescaleMethod::default(),
            multiplier: 0.5,
            in_channels: 3,
            out_channels: None,
            bias: false,
        }
    }
}

/// Modes of `torch.nn.functional.interpolate` that CompVis names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RescaleMethod {
    /// Nearest pixel, rounded down.
    Nearest,
    /// For sequences only; an error for maps, as in PyTorch.
    Linear,
    /// Bilinear, without antialiasing.
    #[default]
    Bilinear,
    /// For volumes only; an error for maps, as in PyTorch.
    Trilinear,
    /// Bicubic (Keys 1981, a = −0.75), without antialiasing.
    Bicubic,
    /// Mean of the covered pixels.
    Area,
}

/// Rescales a map `n_stages` times by `multiplier` and maps its channels: a segmentation map, concatenated with the
/// latent.
///
/// CompVis `encoders/modules.py:106` `SpatialRescaler`.
#[derive(Debug)]
pub struct SpatialRescaler {
    n_stages: i64,
    method: RescaleMethod,
    multiplier: f64,
    in_channels: i64,
    channel_mapper: Option<Conv2d>, // `channel_mapper.weight` [out, in, 1, 1]
    device: Device,
}

impl SpatialRescaler {
    /// Builds the rescaler; with `out_channels` it has weights at `vs / "channel_mapper"`.
    ///
    /// # Errors
    /// If a size is invalid, or the method does not apply to maps.
    pub fn new(vs: &nn::Path, config: &SpatialConfig) -> Result<Self> {
        let SpatialConfig { n_stages, method, multiplier, in_channels, out_channels, bias } = *config;
        let refuse = |message| Err(Error::invalid(format!("spatial conditioning: {message}")));
        at_least_one(
            "spatial conditioning",
            &[("in_channels", in_channels), ("out_channels", out_channels.unwrap_or(1))],
        )?;
        if n_stages < 0 {
            return refuse(format!("n_stages: expected at least 0, got {n_stages}"));
        }
        if !(multiplier.is_finite() && multiplier > 0.) {
            return refuse(format!("multiplier: expected a positive number, got {multiplier}"));
        }
        if matches!(method, RescaleMethod::Linear | RescaleMethod::Trilinear) {
            let got = if method == RescaleMethod::Linear { "linear" } else { "trilinear" };
            return refuse(format!("method: expected nearest, bilinear, bicubic or area, got {got}"));
        }
        let channel_mapper =
            out_channels.map(|channels| conv2d_1x1(&(vs / "channel_mapper"), in_channels, channels, bias));
        Ok(Self { n_stages, method, multiplier, in_channels, channel_mapper, device: vs.device() })
    }

    fn rescale(&self, x: &Tensor) -> Tensor {
        let scales = [self.multiplier, self.multiplier];
        match self.method {
            RescaleMethod::Nearest => x.upsample_nearest2d_vec(None::<&[i64]>, &scales[..]),
            RescaleMethod::Bilinear => x.upsample_bilinear2d_vec(None::<&[i64]>, false, &scales[..]),
            RescaleMethod::Bicubic => x.upsample_bicubic2d_vec(None::<&[i64]>, false, &scales[..]),
            RescaleMethod::Area => x.adaptive_avg_pool2d(self.rescaled_size(x)),
            RescaleMethod::Linear | RescaleMethod::Trilinear => unreachable!("refused by new"),
        }
    }

    /// Height and width after one stage, rounded down.
    fn rescaled_size(&self, x: &Tensor) -> [i64; 2] {
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
        let kind = self.channel_mapper.as_ref().map_or(Kind::Float, |conv| conv.weight().kind());
        let map = upload(map, self.device).to_kind(kind);
        let map = (0..self.n_stages).fold(map, |map, _| self.rescale(&map));
        let map = self.channel_mapper.iter().fold(map, |map, conv| map.apply(conv));
        Ok(Conditioning { concat: Some(map), ..Conditioning::default() })
    }

    fn null_prompt(&self, _batch: i64) -> Result<Prompt> {
        Err(Error::invalid(
            "conditioning: expected a null prompt for guidance or conditioning dropout, got a map, which has none",
        ))
    }
}
