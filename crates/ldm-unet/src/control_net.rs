//! The ControlNet: a copy of the U-Net's encoder half that reads a hint image and steers the U-Net by residuals.

use ldm_core::nn::{Conv2d, zero_conv2d};
use ldm_core::{Conditioning, Result};
use ldm_libtorch::{is_channels_last, to_channels_last};
use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::block::{ForwardContext, UNetBlock};
use crate::conditioning_cache::ConditioningCache;
use crate::control_net_config::ControlNetConfig;
use crate::hint_encoder::HintEncoder;
use crate::plan::{OutputHead, Plan};
use crate::time::TimeEmbedding;

/// A network that computes residuals for the skip connections and the middle block of a U-Net, from the U-Net's own
/// inputs and a hint image (Zhang et al. 2023, arXiv:2302.05543, §3).
///
/// Parameters have the names of lllyasviel/ControlNet below `control_model.`. A new network gives residuals of zero.
///
/// lllyasviel/ControlNet `cldm/cldm.py:54` `ControlNet`; diffusers' `ControlNetModel`.
#[derive(Debug)]
pub struct ControlNet {
    config: ControlNetConfig,
    time: TimeEmbedding,
    hint: HintEncoder,
    input: Vec<UNetBlock>,
    zero_convs: Vec<Conv2d>,
    middle: UNetBlock,
    middle_out: Conv2d,
    first_weight: Tensor,
}

/// Additions to the skip connections and to the output of the middle block of a U-Net.
#[derive(Debug)]
pub struct ControlResiduals {
    /// One for each skip connection, in the order of the down path.
    pub down: Vec<Tensor>,
    /// That of the middle block.
    pub middle: Tensor,
}

impl ControlResiduals {
    /// Multiplies every residual by `scale`.
    #[must_use]
    pub fn scaled(self, scale: f64) -> Self {
        let down = self.down.into_iter().map(|residual| residual * scale).collect();
        Self { down, middle: self.middle * scale }
    }
}

/// The residuals of several ControlNets act as their sum (diffusers' `MultiControlNetModel`).
impl std::ops::Add for ControlResiduals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let down = self.down.into_iter().zip(other.down).map(|(a, b)| a + b).collect();
        Self { down, middle: self.middle + other.middle }
    }
}

impl ControlNet {
    /// Builds the network with its parameters at `vs`.
    ///
    /// # Errors
    /// [`Error::Invalid`](ldm_core::Error::Invalid) if the config is inconsistent.
    pub fn new(vs: &Path, config: &ControlNetConfig) -> Result<Self> {
        let plan = Plan::control_net(config)?;
        let OutputHead::Residuals(hint) = &plan.head else { unreachable!("a ControlNet ends in residuals") };
        let (input_blocks, zero_convs) = (vs / "input_blocks", vs / "zero_convs");
        let zero = |vs: &Path, channels| zero_conv2d(&(vs / 0), channels, channels, 1);
        let blocks = plan.input.iter().enumerate();
        Ok(Self {
            time: TimeEmbedding::new(vs, plan.model_channels),
            hint: HintEncoder::new(&(vs / "input_hint_block"), hint),
            input: UNetBlock::all(&input_blocks, &plan.input, false)?,
            zero_convs: blocks.map(|(index, block)| zero(&(&zero_convs / index), block.channels)).collect(),
            middle: UNetBlock::new(&(vs / "middle_block"), &plan.middle, false)?,
            middle_out: zero(&(vs / "middle_block_out"), plan.middle.channels),
            first_weight: (&input_blocks / 0 / 0).get("weight").expect("the first block is a convolution"),
            config: config.clone(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ControlNetConfig {
        &self.config
    }

    /// Encodes a hint image, which is constant over the steps.
    ///
    /// # Shapes
    /// - `hint`: `[B, hint_channels, H, W]` in `[0, 1]`, RGB
    /// - returns `[B, model_channels, H/f, W/f]` with f of [`ControlNetConfig::hint_factor`]
    pub fn encode_hint(&self, hint: &Tensor) -> Tensor {
        let hint = if self.config.bgr { hint.flip([1]) } else { hint.shallow_clone() };
        self.hint.forward(&self.to_format(&hint))
    }

    /// Precomputes the keys and values of the context in each transformer, as [`UNet::precompute`](crate::UNet::precompute);
    /// the network takes neither label nor concat.
    ///
    /// # Panics
    /// If the context has other channels than the network takes.
    pub fn precompute(&self, cond: &Conditioning) -> ConditioningCache {
        let width = cond.context.as_ref().and_then(|context| context.size().last().copied());
        assert_eq!(width, self.config.unet.context_dim, "expected a context of context_dim channels");
        let context = cond.context.as_ref().map(|context| {
            let context = context.to_kind(self.first_weight.kind());
            self.input.iter().chain([&self.middle]).flat_map(|block| block.project(&context)).collect()
        });
        ConditioningCache::new(None, None, context)
    }

    /// Computes the residuals.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]`, the noisy latents; `t`: `[B]`, integer or fractional training timesteps
    /// - `hint`: `[B, model_channels, h, w]` or `[1, model_channels, h, w]` of [`ControlNet::encode_hint`]
    /// - returns residuals of the shapes of the U-Net's skip connections, in the dtype of the weights
    pub fn forward(
        &self,
        x: &Tensor,
        t: &Tensor,
        cond: &ConditioningCache,
        hint: &Tensor,
    ) -> ControlResiduals {
        let mut context = ForwardContext {
            emb: self.time.forward(t).silu(), // [B, 4·model_channels]
            keys_values: cond.context.as_ref().map(|pairs| pairs.iter()),
            merging: None,
            train: false,
        };
        let mut h = self.to_format(x);
        let mut down = Vec::with_capacity(self.input.len());
        for (index, (block, zero_conv)) in self.input.iter().zip(&self.zero_convs).enumerate() {
            h = block.forward(&h, &mut context);
            if index == 0 {
                h += hint;
            }
            down.push(h.apply(zero_conv));
        }
        let middle = self.middle.forward(&h, &mut context).apply(&self.middle_out);
        ControlResiduals { down, middle }
    }

    /// Converts an input to the dtype and memory format of the weights.
    fn to_format(&self, x: &Tensor) -> Tensor {
        let kind: Kind = self.first_weight.kind();
        let x = x.to_kind(kind);
        if is_channels_last(&self.first_weight) { to_channels_last(&x) } else { x }
    }
}
