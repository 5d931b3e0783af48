//! Classifiers of noisy latents.

use std::path::Path;

use ldm_checkpoint::Checkpoint;
use ldm_core::nn::skip_init;
use ldm_core::{Error, Result};
use ldm_unet::EncoderUNet;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::detect::schedule as detect_schedule;
use crate::{ClassifierConfig, LatentDiffusion, LoadOptions, ModelConfig, ModelSource};

/// Prefix of the diffusion model in a classifier's state dict (CompVis `classifier.py:90`).
const DIFFUSION: &str = "diffusion_model.";
/// The last layer before a latent, which distinguishes first stages.
const LAST_LAYER: &str = "first_stage_model.quant_conv.weight";

/// p(y | x_t) of noisy latents, frozen. CompVis `classifier.py:28` `NoisyLatentImageClassifier`.
#[derive(Debug)]
pub struct Classifier {
    network: EncoderUNet,
    /// The config it was built from.
    config: ClassifierConfig,
    /// Its file, which records the latents it was trained on.
    checkpoint: Checkpoint,
    /// Names of the classes, where the file has them (metadata `classes`, a JSON list).
    pub classes: Vec<String>,
}

impl Classifier {
    /// Opens the classifier that [`ModelSource::find`] finds at `path`, always in f32: in half precision the gradients
    /// of guidance often underflow.
    ///
    /// # Errors
    /// As [`ModelSource::find`] and [`Classifier::load`]; [`Error::Format`] for another kind of model.
    pub fn open(path: &Path, options: &LoadOptions, note: &mut dyn FnMut(&str)) -> Result<Self> {
        let found = ModelSource::find_without(path, options.config.as_deref(), options.ema, &options.ignore)?;
        found.notes.iter().for_each(|each| note(each));
        let ModelConfig::Classifier(config) = &found.config else {
            return Err(Error::format(path, "expected a classifier of noisy latents, got another model"));
        };
        Self::load(config, found.checkpoint, options.device)
    }

    /// Builds the classifier of `config` and loads its weights strictly from a state dict of CompVis' class, or ours.
    /// The diffusion model in it is not loaded.
    ///
    /// # Errors
    /// As [`ClassifierConfig::network`] and [`EncoderUNet::new`]; [`Error::Weights`] listing every name that does not
    /// match.
    pub fn load(config: &ClassifierConfig, checkpoint: Checkpoint, device: Device) -> Result<Self> {
        let network = config.network()?;
        let mut vs = VarStore::new(device);
        let network = skip_init(|| EncoderUNet::new(&(vs.root() / "model"), &network))?;
        checkpoint.clone().without(&[DIFFUSION]).load_mmap(&mut vs)?;
        if ldm_libtorch::prefers_channels_last(device, network.config().model_channels, false) {
            ldm_libtorch::channels_last(&vs);
        }
        vs.freeze();
        let classes = match checkpoint.metadata().get("classes") {
            None => Vec::new(),
            Some(found) => serde_json::from_str(found)
                .map_err(|error| Error::format(checkpoint.path(), format!("metadata `classes`: {error}")))?,
        };
        Ok(Self { network, config: config.clone(), checkpoint, classes })
    }

    /// The number of classes.
    pub fn num_classes(&self) -> i64 {
        self.config.num_classes
    }

    /// Checks that latents of `[h, w]` can be classified.
    ///
    /// # Errors
    /// As [`EncoderUNet::check_size`].
    pub fn check_size(&self, size: [i64; 2]) -> Result<()> {
        self.network.check_size(size)
    }

    /// Checks that the noisy latents and classes of `model` are those it was trained on, as far as its file records
    /// them.
    ///
    /// # Errors
    /// [`Error::Format`] with the difference.
    pub fn check(&self, model: &LatentDiffusion) -> Result<()> {
        let differs = |why: String| Err(Error::format(self.checkpoint.path(), why));
        let (own, latent) = (self.network.config().in_channels, model.config.channels);
        if own != latent {
            return differs(format!("expected a model with latents of {own} channels, got {latent}"));
        }
        let trained_on = self.checkpoint.clone().only(&[DIFFUSION]).scope(DIFFUSION);
        if let Some(difference) = detect_schedule::differs(&trained_on, &model.schedule)? {
            return differs(format!(
                "expected the noise schedule of the model, got another: {difference} in the model"
            ));
        }
        if trained_on.contains("scale_factor") {
            let (own, scale) = (trained_on.number("scale_factor")?, model.scale_factor);
            if (own - scale).abs() > 1e-3 * scale {
                return differs(format!(
                    "expected a classifier for the model's scale_factor {scale}, got {own}"
                ));
            }
        }
        if trained_on.contains(LAST_LAYER)
            && let Some(found) = model.vs().variables().get(LAST_LAYER)
        {
            let own = trained_on.tensor(LAST_LAYER)?.to_device(found.device()).to_kind(Kind::Float);
            // Tolerant of weights in half precision.
            if own.size() != found.size() || !own.allclose(&found.to_kind(Kind::Float), 1e-2, 1e-3, false) {
                return differs("expected a classifier for the model's first stage, got another's".into());
            }
        }
        if !self.classes.is_empty() && !model.classes.is_empty() && self.classes != model.classes {
            return differs(format!(
                "expected the model's classes {}, got {}",
                model.classes.join(", "),
                self.classes.join(", ")
            ));
        }
        Ok(())
    }

    /// log p(y | x_t), differentiable with respect to `x`.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]` f32; `t`: a timestep in `0..T`, may be fractional; `labels`: `[B]` i64, on the
    ///   device of `x`
    /// - returns `[B]` f32
    pub fn log_probability(&self, x: &Tensor, t: f64, labels: &Tensor) -> Tensor {
        let t = Tensor::full([x.size()[0]], t, (Kind::Float, x.device()));
        let logits = self.network.forward(x, &t, false); // [B, classes]
        logits.log_softmax(-1, Kind::Float).gather(1, &labels.unsqueeze(1), false).squeeze_dim(1)
    }
}

impl LatentDiffusion {
    /// Tensors that identify the noisy latents of this model, under the names of CompVis' classifier
    /// (`diffusion_model.…`): schedule, scale, and the layer before the latent. They are saved with a classifier.
    pub fn latent_space(&self) -> Vec<(String, Tensor)> {
        let buffers = self.schedule.buffers().into_iter();
        let mut tensors: Vec<(String, Tensor)> = buffers
            .filter(|(name, _)| ["betas", "alphas_cumprod"].contains(name))
            .map(|(name, values)| (format!("{DIFFUSION}{name}"), Tensor::from_slice(&values)))
            .collect();
        tensors.push((format!("{DIFFUSION}scale_factor"), Tensor::from(self.scale_factor as f32)));
        if let Some(layer) = self.vs().variables().get(LAST_LAYER) {
            tensors.push((format!("{DIFFUSION}{LAST_LAYER}"), layer.detach()));
        }
        tensors
    }
}
