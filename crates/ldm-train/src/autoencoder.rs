//! Stage one: reconstruct pictures through a small latent.

use ldm_autoencoder::{Autoencoder, Bottleneck, FirstStage, FirstStageConfig, Posterior};
use ldm_core::noise::Seeded;
use ldm_core::weights::Checkpoint;
use ldm_core::{Error, NoiseSource, Result};
use ldm_data::Batch;
use ldm_metrics::psnr;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::config::{LossConfig, PixelLoss, ReconstructionLoss, SampleConfig};
use crate::objective::{Loss, Moment, Objective, Turn, variables, with_gradients};
use crate::preview::two_rows;

/// Reconstruction plus the latent's own loss. Perceptual and adversarial terms will stand beside them.
///
/// KL first stages use sums over a sample, as the reference (`contperceptual.py:45`): Σ|x − y| + w·KL; VQ ones use
/// means (`vqperceptual.py:56`): mean|x − y| + w·codebook loss.
#[derive(Debug)]
pub struct AutoencoderObjective {
    vs: VarStore,
    channels_last: bool,
    model: Autoencoder,
    loss: ReconstructionLoss,
}

impl AutoencoderObjective {
    /// A first stage with fresh weights, and the loss its `lossconfig` asks for.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the model or its loss cannot be what the config says.
    pub fn new(config: &FirstStageConfig, device: Device) -> Result<Self> {
        let vs = VarStore::new(device);
        let model = Autoencoder::new(&vs.root(), config)?;
        let channels_last = ldm_libtorch::prefers_channels_last(device, 0, true);
        if channels_last {
            ldm_libtorch::channels_last(&vs);
        }
        Ok(Self { vs, channels_last, model, loss: loss_config(config)? })
    }

    fn place(&self, images: &Tensor) -> Result<Tensor> {
        let size = images.size();
        self.check_size([size[2], size[3]])?;
        let images = images.to_device(self.vs.device());
        Ok(if self.channels_last { ldm_libtorch::to_channels_last(&images) } else { images })
    }
}

/// `lossconfig` as this crate knows it.
fn loss_config(config: &FirstStageConfig) -> Result<ReconstructionLoss> {
    let given = match config {
        FirstStageConfig::Kl(config) => config.lossconfig.clone(),
        FirstStageConfig::Vq(config) => config.lossconfig.clone(),
        FirstStageConfig::Identity(_) => {
            return Err(Error::invalid("the identity first stage has nothing to train"));
        }
    };
    let Some(given) = given else { return Ok(ReconstructionLoss::default()) };
    if let Some(target) = given.get("target").and_then(|target| target.as_str())
        && (target.starts_with("ldm.modules.losses.") || target.starts_with("taming.modules.losses."))
    {
        return Err(Error::invalid(format!(
            "lossconfig: perceptual and adversarial terms are not supported yet, expected target: reconstruction, got: {target}"
        )));
    }
    let LossConfig::Reconstruction(loss) =
        serde_yaml::from_value(given).map_err(|error| Error::invalid(format!("lossconfig: {error}")))?;
    Ok(loss)
}

impl Objective for AutoencoderObjective {
    fn check_size(&self, size: [i64; 2]) -> Result<()> {
        self.model.check_image_size(size)
    }

    /// Nothing to measure.
    fn prepare(&mut self, _first: &Batch, _noise: &mut dyn NoiseSource) -> Result<()> {
        Ok(())
    }

    fn loss(&self, _moment: Moment, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        let image = self.place(&batch.images)?; //                                       [B, 3, H, W]
        let pass = self.model.forward(&image, noise, true);
        let difference = pass.image.to_kind(Kind::Float) - &image;
        let difference = match self.loss.pixel_loss {
            PixelLoss::L1 => difference.abs(),
            PixelLoss::L2 => difference.square(),
        };
        let per_pixel = difference.mean(Kind::Float);
        let mut parts = vec![("rec_loss", per_pixel.detach())];
        let total = match &pass.bottleneck {
            Bottleneck::Vq(quantized) => {
                let loss = quantized.loss.to_kind(Kind::Float);
                parts.push(("quant_loss", loss.detach()));
                per_pixel + loss * self.loss.codebook_weight
            }
            Bottleneck::Kl(posterior) => {
                let batch_size = image.size()[0] as f64;
                let kl = posterior.kl().to_kind(Kind::Float).sum(Kind::Float) / batch_size;
                parts.push(("kl_loss", kl.detach()));
                difference.sum(Kind::Float) / batch_size + kl * self.loss.kl_weight
            }
        };
        parts.push(("loss", total.detach()));
        Ok(Loss { total, parts })
    }

    fn turns(&self) -> Vec<Turn> {
        vec![Turn { name: "generator", trainable: self.averaged(), rate: 1. }]
    }

    fn averaged(&self) -> Vec<(String, Tensor)> {
        with_gradients(variables(&self.vs, &[""]))
    }

    fn weights(&self) -> Vec<(String, Tensor)> {
        variables(&self.vs, &[""])
    }

    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        checkpoint.without(&["loss."]).load_into(&mut self.vs)
    }

    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>> {
        let (mut sum, mut absolute, mut count) = (0., 0., 0);
        for batch in batches {
            let image = self.place(&batch?.images)?;
            let decoded = tch::no_grad(|| self.model.decode(&self.model.encode(&image).mode()));
            let each = psnr(&decoded, &image);
            sum += each.sum(Kind::Double).double_value(&[]);
            absolute += (decoded - &image)
                .abs()
                .mean_dim([1, 2, 3].as_slice(), false, Kind::Float)
                .sum(Kind::Double)
                .double_value(&[]);
            count += image.size()[0];
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        Ok(vec![("val/psnr", sum / count as f64), ("val/rec_loss", absolute / count as f64)])
    }

    fn preview(&self, batch: &Batch, config: &SampleConfig) -> Result<Tensor> {
        let count = batch.images.size()[0].min(config.count as i64);
        let image = self.place(&batch.images.narrow(0, 0, count))?;
        let decoded = tch::no_grad(|| match self.model.encode(&image) {
            posterior @ Posterior::Gaussian { .. } => {
                self.model.decode(&posterior.sample(&mut Seeded::new(0..count as u64)))
            }
            Posterior::Point(z) => self.model.decode(&z),
        });
        Ok(two_rows(&image, &decoded))
    }
}
