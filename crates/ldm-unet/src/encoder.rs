//! The noisy classifier: the encoder half of a U-Net with a pool.

use ldm_core::{Error, Result};
use ldm_libtorch::{is_channels_last, to_channels_last};
use tch::nn::Path;
use tch::{Kind, Tensor};

use crate::block::{ForwardContext, UNetBlock};
use crate::encoder_config::{EncoderUNetConfig, Pool};
use crate::plan::{OutputHead, Plan};
use crate::pool::PoolLayer;
use crate::time::TimeEmbedding;

/// log p(y | x_t) up to a constant: classifies noisy latents (Dhariwal & Nichol 2021, §4).
///
/// CompVis `openaimodel.py:748` `EncoderUNetModel`.
#[derive(Debug)]
pub struct EncoderUNet {
    config: EncoderUNetConfig,
    time: TimeEmbedding,
    input: Vec<UNetBlock>,
    middle: UNetBlock,
    pool: PoolLayer,
    pools_every_block: bool,
    first_weight: Tensor,
}

impl EncoderUNet {
    /// Builds the network with its parameters at `vs`.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] if the config is inconsistent.
    pub fn new(vs: &Path, config: &EncoderUNetConfig) -> Result<Self> {
        let plan = Plan::encoder(config)?;
        let OutputHead::Pool(pool) = plan.head else { unreachable!("an encoder ends in a pool") };
        let (use_checkpoint, input_blocks) = (config.use_checkpoint, vs / "input_blocks");
        Ok(Self {
            time: TimeEmbedding::new(vs, plan.model_channels),
            input: UNetBlock::all(&input_blocks, &plan.input, use_checkpoint)?,
            middle: UNetBlock::new(&(vs / "middle_block"), &plan.middle, use_checkpoint)?,
            pool: PoolLayer::new(&(vs / "out"), pool)?,
            pools_every_block: pool.pools_every_block(),
            first_weight: (&input_blocks / 0 / 0).get("weight").expect("the first block is a convolution"),
            config: config.clone(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &EncoderUNetConfig {
        &self.config
    }

    /// Checks that latents of `[h, w]` can be classified: with attention pooling only those of the config's `image_size`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the valid size.
    pub fn check_size(&self, size: [i64; 2]) -> Result<()> {
        match (self.config.pool, self.config.image_size) {
            (Pool::Attention, Some(own)) if own != size => Err(Error::invalid(format!(
                "latent: expected {}x{} (a classifier with pool attention), got {}x{}",
                own[0], own[1], size[0], size[1]
            ))),
            _ => Ok(()),
        }
    }

    /// Classifies noisy latents.
    ///
    /// # Shapes
    /// - `x`: `[B, in_channels, h, w]`; `t`: `[B]`, integer or fractional
    /// - returns `[B, out_channels]`, dtype of `x`
    ///
    /// # Panics
    /// On a shape mismatch; see [`EncoderUNet::check_size`].
    pub fn forward(&self, x: &Tensor, t: &Tensor, train: bool) -> Tensor {
        let mut h = x.to_kind(self.first_weight.kind());
        if is_channels_last(&self.first_weight) {
            h = to_channels_last(&h);
        }
        let mut context =
            ForwardContext { emb: self.time.forward(t).silu(), keys_values: None, merging: None, train };
        let mut means = Vec::new();
        for block in self.input.iter().chain([&self.middle]) {
            h = block.forward(&h, &mut context);
            if self.pools_every_block {
                means.push(h.mean_dim([2_i64, 3].as_slice(), false, None::<Kind>)); // [B, C]
            }
        }
        if self.pools_every_block {
            h = Tensor::cat(&means, 1);
        }
        self.pool.forward(&h).to_kind(x.kind())
    }
}
