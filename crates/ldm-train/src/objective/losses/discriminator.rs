//! The PatchGAN discriminator.

use tch::Tensor;
use tch::nn::{self, Conv2D, ConvConfig, Init, Module, Path};

use super::norm::{ActNorm, BatchNorm, DiscriminatorNorm};

/// Config of a [`Discriminator`]; the defaults are taming-transformers'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscriminatorConfig {
    /// Channels of an image.
    pub input_nc: i64,
    /// Channels of the first convolution.
    pub ndf: i64,
    /// Strided convolutions.
    pub n_layers: i64,
    /// ActNorm in place of batch normalization.
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
            return Err(format!("`disc_ndf`: expected a positive number, got {}", self.ndf));
        }
        // More would require images of more than 3000 pixels per side.
        if !(1..=10).contains(&self.n_layers) {
            return Err(format!("`disc_num_layers`: expected 1 to 10, got {}", self.n_layers));
        }
        Ok(())
    }

    /// The smallest side of an image: after the strides, each of two convolutions removes one pixel.
    pub(super) fn smallest_side(&self) -> i64 {
        3 << self.n_layers
    }
}

/// PatchGAN (Isola et al. 2017): convolutions that classify overlapping patches.
///
/// Parameters are `main.N.*`, where N also counts activations, as in taming-transformers. Kernels are initialized from
/// N(0, 0.02).
///
/// taming-transformers `discriminator/model.py:17` `NLayerDiscriminator`.
#[derive(Debug)]
pub struct Discriminator {
    blocks: Vec<DiscriminatorBlock>,
    last: Conv2D,
    /// `[1]`, the negative slope of the leaky ReLU; that of tch is fixed at 0.01.
    negative_slope: Tensor,
}

#[derive(Debug)]
struct DiscriminatorBlock {
    conv: Conv2D,
    norm: Option<DiscriminatorNorm>,
}

impl Discriminator {
    /// Creates a discriminator below `vs`, which is `loss.discriminator` in CompVis checkpoints.
    pub fn new(vs: &Path, config: &DiscriminatorConfig) -> Self {
        let main = vs / "main";
        let width = |layer: i64| config.ndf * (1 << layer).min(8);
        let mut index = 0;
        let mut blocks = vec![DiscriminatorBlock {
            conv: conv(&(&main / index), config.input_nc, config.ndf, 2, true),
            norm: None,
        }];
        index += 2;
        for layer in 1..=config.n_layers {
            let stride = if layer < config.n_layers { 2 } else { 1 };
            let at = &main / index;
            let conv = conv(&at, width(layer - 1), width(layer), stride, config.use_actnorm);
            let at = &main / (index + 1);
            let norm = if config.use_actnorm {
                DiscriminatorNorm::Act(ActNorm::new(&at, width(layer)))
            } else {
                DiscriminatorNorm::Batch(BatchNorm::new(&at, width(layer)))
            };
            blocks.push(DiscriminatorBlock { conv, norm: Some(norm) });
            index += 3;
        }
        Self {
            blocks,
            last: conv(&(&main / index), width(config.n_layers), 1, 1, true),
            negative_slope: Tensor::full([1], 0.2, (tch::Kind::Float, vs.device())),
        }
    }

    /// Computes the logits of patches, always in training mode: normalization uses the statistics of the batch
    /// (ActNorm: of the first batch).
    ///
    /// # Shapes
    /// - `x`: `[B, input_nc, H, W]`
    /// - returns `[B, 1, H/2ⁿ − 2, W/2ⁿ − 2]`, higher for real images
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = x.shallow_clone();
        for DiscriminatorBlock { conv, norm } in &self.blocks {
            h = conv.forward(&h);
            if let Some(norm) = norm {
                h = norm.forward(&h);
            }
            h = h.prelu(&self.negative_slope.to_kind(h.kind()));
        }
        self.last.forward(&h)
    }

    /// Must be called after weights were loaded, which include ActNorm's `initialized`.
    pub(super) fn loaded(&self) {
        self.blocks.iter().filter_map(|block| block.norm.as_ref()).for_each(DiscriminatorNorm::loaded);
    }
}

/// Kernel 4, padding 1; the bias is initialized as in PyTorch.
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
