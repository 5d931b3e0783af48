//! encoder → quant_conv → regularizer → post_quant_conv → decoder.

use ldm_core::nn::{NormStats, conv2d};
use ldm_core::{Error, NoiseSource, Result, Tiles};
use tch::Tensor;
use tch::nn::{Conv2D, Module, Path};

use crate::codebook::{Codebook, Quantized};
use crate::config::FirstStageConfig;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::first_stage::FirstStage;
use crate::pass::ForwardContext;
use crate::posterior::Posterior;
use crate::regularizer::Regularizer;

/// CompVis' `AutoencoderKL`, `VQModel` and `VQModelInterface`: they differ in the regularizer alone.
///
/// CompVis `autoencoder.py:14,264,285`.
#[derive(Debug)]
pub struct Autoencoder {
    encoder: Encoder,
    quant_conv: Conv2D,
    regularizer: Regularizer,
    post_quant_conv: Conv2D,
    decoder: Decoder,
    /// `[3, K, 1, 1]`: colors of a segmentation map's classes, for looking at.
    colorize: Option<Tensor>,
    factor: i64,
    latent_channels: i64,
}

/// An image after its way through the autoencoder, and what the loss needs of that way.
#[derive(Debug)]
pub struct Reconstruction {
    /// `[B, C, H, W]`, about `[-1, 1]` and not clamped.
    pub image: Tensor,
    /// What the regularizer saw.
    pub bottleneck: Bottleneck,
}

/// What the regularizer saw of an image.
#[derive(Debug)]
pub enum Bottleneck {
    /// The distribution from which the latent was drawn.
    Kl(Posterior),
    /// The quantized latent, its loss and its indices.
    Vq(Quantized),
}

impl Autoencoder {
    /// Builds the model of `config` below `vs`, where `encoder` hangs.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a config no model can be built from, `identity` among them; [`Error::Io`] and
    /// [`Error::Format`] about the file of `remap`.
    pub fn new(vs: &Path, config: &FirstStageConfig) -> Result<Self> {
        config.validate()?;
        let (net, embed_dim, labels, regularizer) = match config {
            FirstStageConfig::Kl(kl) => (&kl.ddconfig, kl.embed_dim, kl.colorize_nlabels, Regularizer::Kl),
            FirstStageConfig::Vq(vq) => {
                let codebook = Codebook::new(&(vs / "quantize"), &vq.codebook())?;
                (&vq.ddconfig, vq.embed_dim, vq.colorize_nlabels, Regularizer::Vq(codebook))
            }
            FirstStageConfig::Identity(_) => {
                return Err(Error::invalid("`target`: expected an autoencoder, `kl` or `vq`, got: identity"));
            }
        };
        let moments = if net.double_z { 2 } else { 1 };
        Ok(Self {
            encoder: Encoder::new(&(vs / "encoder"), net)?,
            quant_conv: conv2d(&(vs / "quant_conv"), moments * net.z_channels, moments * embed_dim, 1, 1, 0),
            regularizer,
            post_quant_conv: conv2d(&(vs / "post_quant_conv"), embed_dim, net.z_channels, 1, 1, 0),
            decoder: Decoder::new(&(vs / "decoder"), net)?,
            colorize: labels.map(|labels| {
                tch::no_grad(|| vs.zeros_no_train("colorize", &[3, labels, 1, 1]).normal_(0., 1.))
            }),
            factor: net.factor(),
            latent_channels: embed_dim,
        })
    }

    /// The whole way of an image. `kl` draws its latent, in validation too, as the reference.
    ///
    /// # Shapes
    /// - `image`: `[B, C, H, W]` in `[-1, 1]`, sides divisible by the factor
    ///
    /// CompVis `autoencoder.py:117,335`.
    pub fn forward(&self, image: &Tensor, noise: &mut dyn NoiseSource, train: bool) -> Reconstruction {
        let h = self.features(image, train);
        match &self.regularizer {
            Regularizer::Kl => {
                let posterior = Posterior::from_moments(&h);
                let image = self.decode_unquantized(&posterior.sample(noise), train);
                Reconstruction { image, bottleneck: Bottleneck::Kl(posterior) }
            }
            Regularizer::Vq(codebook) => {
                let quantized = codebook.forward(&h, noise);
                let image = self.decode_unquantized(&quantized.z, train);
                Reconstruction { image, bottleneck: Bottleneck::Vq(quantized) }
            }
        }
    }

    /// [`FirstStage::encode`] with dropout where `train`.
    pub fn encode_train(&self, image: &Tensor, train: bool) -> Posterior {
        let h = self.features(image, train);
        match self.regularizer {
            Regularizer::Kl => Posterior::from_moments(&h),
            Regularizer::Vq(_) => Posterior::Point(h),
        }
    }

    /// [`FirstStage::decode`] with dropout where `train`.
    pub fn decode_train(&self, z: &Tensor, train: bool) -> Tensor {
        match &self.regularizer {
            Regularizer::Kl => self.decode_unquantized(z, train),
            Regularizer::Vq(codebook) => self.decode_unquantized(&codebook.quantize(z), train),
        }
    }

    /// Decodes without quantization: CompVis' `force_not_quantize`, and `VQModel.decode`.
    pub fn decode_unquantized(&self, z: &Tensor, train: bool) -> Tensor {
        self.decoder.forward(&self.post_quant_conv.forward(z), train)
    }

    /// The last convolution's weight, on which the adversarial loss balances its gradients.
    pub fn last_layer(&self) -> &Tensor {
        self.decoder.last_layer()
    }

    /// The codebook of a `vq` model.
    pub fn codebook(&self) -> Option<&Codebook> {
        match &self.regularizer {
            Regularizer::Kl => None,
            Regularizer::Vq(codebook) => Some(codebook),
        }
    }

    /// Shows a segmentation map in colors: a fixed random projection of its classes, stretched to `[-1, 1]`.
    /// `None` without `colorize_nlabels`.
    ///
    /// # Shapes
    /// - `map`: `[B, colorize_nlabels, H, W]`
    /// - returns `[B, 3, H, W]`
    ///
    /// CompVis `autoencoder.py:417`.
    pub fn to_rgb(&self, map: &Tensor) -> Option<Tensor> {
        let colorize = self.colorize.as_ref()?;
        let x = map.conv2d(colorize, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1);
        let (low, high) = (x.min(), x.max());
        Some((x - &low) / (high - &low) * 2. - 1.)
    }

    fn features(&self, image: &Tensor, train: bool) -> Tensor {
        self.quant_conv.forward(&self.encoder.forward(image, train))
    }
}

/// Half as many rows and columns of `z` again as a tile has, or all, evenly spread: the smaller it is, the larger is the
/// part that its border has in every mean.
fn thinned(z: &Tensor, tiles: &Tiles) -> Tensor {
    let tile = tiles.iter().next().expect("there is always one");
    let pick = |z: Tensor, dim: i64, side: i64| {
        let length = z.size()[dim as usize];
        let count = (side * 3 / 2).min(length);
        let indices: Vec<i64> = (0..count).map(|index| (2 * index + 1) * length / (2 * count)).collect();
        z.index_select(dim, &Tensor::from_slice(&indices).to_device(z.device()))
    };
    pick(pick(z.shallow_clone(), 2, tile.height), 3, tile.width)
}

impl FirstStage for Autoencoder {
    fn encode(&self, image: &Tensor) -> Posterior {
        self.encode_train(image, false)
    }

    fn decode(&self, z: &Tensor) -> Tensor {
        self.decode_train(z, false)
    }

    // Norms take mean and deviation, and attention takes keys and values, of one small latent that stands for the whole:
    // every so many rows and columns of it. So tiles agree on light and color.
    fn decode_tiled(&self, z: &Tensor, tiles: &Tiles) -> Tensor {
        let part = |z: &Tensor, global: NormStats| {
            let z = match &self.regularizer {
                Regularizer::Kl => z.shallow_clone(),
                Regularizer::Vq(codebook) => codebook.quantize(z),
            };
            self.decoder.pass(&self.post_quant_conv.forward(&z), &mut ForwardContext { train: false, global })
        };
        if tiles.len() == 1 {
            return part(z, NormStats::Local);
        }
        let mut noted = Vec::new();
        let _: Tensor = part(&thinned(z, tiles), NormStats::Record(&mut noted));
        tiles.blend(self.factor, |tile| part(&tile.of(z), NormStats::Replay(noted.iter())))
    }

    fn factor(&self) -> i64 {
        self.factor
    }

    fn latent_channels(&self) -> i64 {
        self.latent_channels
    }
}
