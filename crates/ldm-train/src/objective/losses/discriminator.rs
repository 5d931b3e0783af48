//! The critic.

use tch::Tensor;
use tch::nn::{self, Conv2D, ConvConfig, Init, Module, Path};

use super::norm::{ActNorm, BatchNorm, Norm};

/// What a [`Discriminator`] is made of; the defaults are the reference's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscriminatorConfig {
    /// Channels of an image.
    pub input_nc: i64,
    /// Channels of the first convolution.
    pub ndf: i64,
    /// Strided convolutions.
    pub n_layers: i64,
    /// ActNorm in the place of batch normalization.
    pub use_actnorm: bool,
}

impl Default for DiscriminatorConfig {
    fn default() -> Self {
        Self { input_nc: 3, ndf: 64, n_layers: 3, use_actnorm: false }
    }
}

impl DiscriminatorConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.ndf < 1 {
            return Err(format!("`disc_ndf`: expected a positive number, got: {}", self.ndf));
        }
        // More would need images of more than 3000 pixels a side.
        if !(1..=10).contains(&self.n_layers) {
            return Err(format!("`disc_num_layers`: expected 1 to 10, got: {}", self.n_layers));
        }
        Ok(())
    }

    /// The least side of an image: after the strides two convolutions take one pixel each.
    pub(super) fn least_side(&self) -> i64 {
        3 << self.n_layers
    }
}

/// PatchGAN (Isola et al. 2017): convolutions that judge overlapping patches, each by itself.
///
/// Parameters are `main.N.*`, N counting activations, as in the reference. Kernels are drawn from N(0, 0.02).
///
/// taming-transformers `discriminator/model.py:17` `NLayerDiscriminator`.
#[derive(Debug)]
pub struct Discriminator {
    blocks: Vec<Block>,
    last: Conv2D,
    /// `[1]`, for a leaky ReLU that is not tch's 0.01.
    derivative: Tensor,
}

#[derive(Debug)]
struct Block {
    conv: Conv2D,
    norm: Option<Norm>,
}

impl Discriminator {
    /// Below `vs`, `loss.discriminator` in a CompVis file.
    pub fn new(vs: &Path, config: &DiscriminatorConfig) -> Self {
        let main = vs / "main";
        let width = |layer: i64| config.ndf * (1 << layer).min(8);
        let mut index = 0;
        let mut blocks =
            vec![Block { conv: conv(&(&main / index), config.input_nc, config.ndf, 2, true), norm: None }];
        index += 2;
        for layer in 1..=config.n_layers {
            let stride = if layer < config.n_layers { 2 } else { 1 };
            let at = &main / index;
            let conv = conv(&at, width(layer - 1), width(layer), stride, config.use_actnorm);
            let at = &main / (index + 1);
            let norm = if config.use_actnorm {
                Norm::Act(ActNorm::new(&at, width(layer)))
            } else {
                Norm::Batch(BatchNorm::new(&at, width(layer)))
            };
            blocks.push(Block { conv, norm: Some(norm) });
            index += 3;
        }
        Self {
            blocks,
            last: conv(&(&main / index), width(config.n_layers), 1, 1, true),
            derivative: Tensor::full([1], 0.2, (tch::Kind::Float, vs.device())),
        }
    }

    /// In training mode: what it normalizes by is the batch's, or measured on the first batch.
    ///
    /// # Shapes
    /// - `x`: `[B, input_nc, H, W]`
    /// - returns `[B, 1, H/2ⁿ − 2, W/2ⁿ − 2]`: the higher, the more real
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = x.shallow_clone();
        for Block { conv, norm } in &self.blocks {
            h = conv.forward(&h);
            if let Some(norm) = norm {
                h = norm.forward(&h);
            }
            h = h.prelu(&self.derivative.to_kind(h.kind()));
        }
        self.last.forward(&h)
    }

    /// After weights were loaded: whether ActNorm has seen its first batch is theirs to say.
    pub(super) fn loaded(&self) {
        self.blocks.iter().filter_map(|block| block.norm.as_ref()).for_each(Norm::loaded);
    }
}

/// Kernel 4, padding 1; the bias as PyTorch draws it.
fn conv(vs: &Path, from: i64, to: i64, stride: i64, bias: bool) -> Conv2D {
    let bound = 1. / ((from * 16) as f64).sqrt();
    let config = ConvConfig {
        stride,
        padding: 1,
        bias,
        ws_init: Init::Randn { mean: 0., stdev: 0.02 },
        bs_init: Init::Uniform { lo: -bound, up: bound },
        ..ConvConfig::default()
    };
    nn::conv2d(vs, from, to, 4, config)
}
