//! The autoencoder: encoder → quant_conv → regularizer → post_quant_conv → decoder.

use ldm_core::nn::{Conv2d, NormStats, conv2d};
use ldm_core::{Error, NoiseSource, Result, Tiles, channels};
use tch::Tensor;
use tch::nn::{Module, Path};

use crate::checks::refuse;
use crate::codebook::{Codebook, Quantized};
use crate::config::FirstStageConfig;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::first_stage::FirstStage;
use crate::image_kind::ImageKind;
use crate::layer_context::LayerContext;
use crate::posterior::Posterior;

/// CompVis' `AutoencoderKL`, `VQModel` and `VQModelInterface`: they differ only in the regularizer.
///
/// CompVis `autoencoder.py:14,264,285`.
#[derive(Debug)]
pub struct Autoencoder {
    encoder: Encoder,
    quant_conv: Conv2d,
    regularizer: Regularizer,
    post_quant_conv: Conv2d,
    decoder: Decoder,
    /// `[3, K, 1, 1]`: colors for showing the classes of a segmentation map.
    colorize: Option<Tensor>,
    input: ImageKind,
    output_channels: i64,
    factor: i64,
    latent_channels: i64,
}

/// The constraint on the latent space: all that distinguishes CompVis' `AutoencoderKL` from its `VQModel`.
///
/// Rombach et al. 2022, §3.1.
#[derive(Debug)]
pub enum Regularizer {
    /// A small pull toward N(0, 1).
    Kl,
    /// Vector quantization, inside the decoder.
    Vq(Codebook),
}

/// A reconstructed image, and the bottleneck that the loss regularizes.
#[derive(Debug)]
pub struct Reconstruction {
    /// `[B, C, H, W]`, about `[-1, 1]` and not clamped.
    pub image: Tensor,
    /// The posterior or the quantized latent.
    pub bottleneck: Bottleneck,
}

/// The latent of an image as the regularizer takes it.
#[derive(Debug)]
pub enum Bottleneck {
    /// The distribution the latent was sampled from.
    Kl(Posterior),
    /// The quantized latent, its loss and its indices.
    Vq(Quantized),
}

impl Autoencoder {
    /// Builds the model of `config` at `vs`, the parent of `encoder`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid config or `identity`; [`Error::Io`] and [`Error::Format`] for the file of
    /// `remap`.
    pub fn new(vs: &Path, config: &FirstStageConfig) -> Result<Self> {
        config.validate()?;
        let (net, embed_dim, labels, regularizer) = match config {
            FirstStageConfig::Kl(kl) => (&kl.ddconfig, kl.embed_dim, kl.colorize_nlabels, Regularizer::Kl),
            FirstStageConfig::Vq(vq) => {
                let codebook = Codebook::new(&(vs / "quantize"), &vq.codebook())?;
                (&vq.ddconfig, vq.embed_dim, vq.colorize_nlabels, Regularizer::Vq(codebook))
            }
            FirstStageConfig::Identity(_) => {
                return Err(Error::invalid("`target`: expected an autoencoder, `kl` or `vq`, got identity"));
            }
        };
        if let (ImageKind::LabelMap(_), Some(labels)) = (config.input(), labels)
            && labels != net.output_channels()
        {
            let expected = format!("the {} decoded channels", net.output_channels());
            return refuse("colorize_nlabels", &expected, labels);
        }
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
            input: config.input(),
            output_channels: net.output_channels(),
            factor: net.factor(),
            latent_channels: embed_dim,
        })
    }

    /// Encodes and decodes an image. `kl` samples its latent, in validation too, as CompVis.
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

    /// [`FirstStage::encode`], with dropout if `train`.
    pub fn encode_train(&self, image: &Tensor, train: bool) -> Posterior {
        self.posterior(self.features(image, train))
    }

    /// The posterior of the encoder's moments.
    fn posterior(&self, moments: Tensor) -> Posterior {
        match self.regularizer {
            Regularizer::Kl => Posterior::from_moments(&moments),
            Regularizer::Vq(_) => Posterior::Point(moments),
        }
    }

    /// [`FirstStage::decode`], with dropout if `train`.
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

    /// The weight of the last convolution, for the adaptive weight of the adversarial loss.
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

    /// Colors a segmentation map by a fixed random projection of its classes, scaled to `[-1, 1]`.
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
        // Maps of a single label have one value.
        Some((x - &low) / (high - &low).clamp_min(f64::from(f32::MIN_POSITIVE)) * 2. - 1.)
    }

    fn features(&self, image: &Tensor, train: bool) -> Tensor {
        self.quant_conv.forward(&self.encoder.forward(image, train))
    }

    /// Decodes latents drawn from N(0, 1): samples of the prior that a KL first stage is pulled to. `None` for VQ, whose
    /// codes have no such prior.
    ///
    /// # Shapes
    /// - `like`: `[B, latent_channels, h, w]`, of the shape drawn; returns `[B, C, h·f, w·f]`
    ///
    /// CompVis `autoencoder.py:408` `log_images`.
    pub fn prior_samples(&self, like: &Tensor, noise: &mut dyn NoiseSource) -> Option<Tensor> {
        match self.regularizer {
            Regularizer::Kl => Some(self.decode(&noise.like(like))),
            Regularizer::Vq(_) => None,
        }
    }
}

/// Evenly spaced rows and columns of `z`: 1.5 times as many as a tile has, or all. In a smaller sample the border would
/// weigh more in every mean.
fn subsample(z: &Tensor, tiles: &Tiles) -> Tensor {
    let tile = tiles.iter().next().expect("there is at least one tile");
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

    fn encode_tiled(&self, image: &Tensor, tiles: &Tiles) -> Posterior {
        let moments = tiles.blend(1, |tile| self.features(&tile.scaled(self.factor).of(image), false));
        self.posterior(moments)
    }

    fn decode(&self, z: &Tensor) -> Tensor {
        self.decode_train(z, false)
    }

    // All tiles use the norm statistics and the keys and values of one small subsample of the whole latent, so that they
    // agree on brightness and color.
    fn decode_tiled(&self, z: &Tensor, tiles: &Tiles) -> Tensor {
        let decode = |z: &Tensor, norm_stats: NormStats| {
            let z = match &self.regularizer {
                Regularizer::Kl => z.shallow_clone(),
                Regularizer::Vq(codebook) => codebook.quantize(z),
            };
            self.decoder
                .forward_in(&self.post_quant_conv.forward(&z), &mut LayerContext { train: false, norm_stats })
        };
        if tiles.len() == 1 {
            return decode(z, NormStats::Local);
        }
        let mut recorded = Vec::new();
        let _: Tensor = decode(&subsample(z, tiles), NormStats::Record(&mut recorded));
        tiles.blend(self.factor, |tile| decode(&tile.of(z), NormStats::Replay(recorded.iter())))
    }

    fn codebook(&self) -> Option<&Codebook> {
        Autoencoder::codebook(self)
    }

    fn decode_unquantized(&self, z: &Tensor) -> Tensor {
        Autoencoder::decode_unquantized(self, z, false)
    }

    fn input(&self) -> ImageKind {
        self.input
    }

    fn output_channels(&self) -> i64 {
        self.output_channels
    }

    fn shown(&self, images: &Tensor) -> Tensor {
        match self.input {
            ImageKind::Pixels(_) => images.shallow_clone(),
            ImageKind::LabelMap(_) => {
                // Reconstructions may have been moved to the CPU.
                let on = |colors: &Tensor| images.to_device(colors.device()).to_kind(colors.kind());
                let colored = self.colorize.as_ref().and_then(|colors| self.to_rgb(&on(colors)));
                colored.unwrap_or_else(|| channels::label_colors(images))
            }
        }
    }

    fn factor(&self) -> i64 {
        self.factor
    }

    fn latent_channels(&self) -> i64 {
        self.latent_channels
    }
}
