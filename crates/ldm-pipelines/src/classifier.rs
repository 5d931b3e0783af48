//! Which class noisy latents show.

use std::path::Path;

use ldm_checkpoint::Checkpoint;
use ldm_core::nn::skip_init;
use ldm_core::{Error, Result};
use ldm_unet::EncoderUNet;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::detect::schedule as detect_schedule;
use crate::{ClassifierConfig, LatentDiffusion, LoadOptions, ModelConfig, ModelSource};

/// Under which CompVis keeps the diffusion model beside the classifier (`classifier.py:90`).
const DIFFUSION: &str = "diffusion_model.";
/// The last layer before a latent: it tells first stages apart.
const LAST_LAYER: &str = "first_stage_model.quant_conv.weight";

/// p(y | x_t) of noisy latents, frozen. CompVis `classifier.py:28` `NoisyLatentImageClassifier`.
#[derive(Debug)]
pub struct Classifier {
    network: EncoderUNet,
    /// What it was built from.
    config: ClassifierConfig,
    /// Its file: which latents it was trained on.
    checkpoint: Checkpoint,
    /// Names of the classes, where the file says them (metadata `classes`, a JSON list).
    pub classes: Vec<String>,
}

impl Classifier {
    /// Opens the classifier that [`ModelSource::find`] finds at `path`, in f32 whatever `how` says: in half precision
    /// the gradients that guide are often 0.
    ///
    /// # Errors
    /// As [`ModelSource::find`] and [`Classifier::load`]; [`Error::Format`] when another kind of model is there.
    pub fn open(path: &Path, how: &LoadOptions, note: &mut dyn FnMut(&str)) -> Result<Self> {
        let found = ModelSource::find(path, how.config.as_deref(), how.ema)?;
        found.notes.iter().for_each(|each| note(each));
        let ModelConfig::Classifier(config) = &found.config else {
            return Err(Error::format(path, "no classifier of noisy latents, but another model"));
        };
        Self::load(config, found.checkpoint, how.device)
    }

    /// Builds what `config` describes and loads it strictly from a state dict of CompVis' class, or ours; of the
    /// diffusion model in it nothing is loaded.
    ///
    /// # Errors
    /// As [`ClassifierConfig::network`] and [`EncoderUNet::new`]; [`Error::Weights`] listing every name that does not fit.
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

    /// How many classes it knows.
    pub fn num_classes(&self) -> i64 {
        self.config.num_classes
    }

    /// Whether latents of `[h, w]` can be classified.
    ///
    /// # Errors
    /// As [`EncoderUNet::check_size`].
    pub fn check_size(&self, size: [i64; 2]) -> Result<()> {
        self.network.check_size(size)
    }

    /// Refuses a model whose noisy latents or classes are not those it was trained on, as far as its file tells.
    ///
    /// # Errors
    /// [`Error::Format`] with what differs.
    pub fn check(&self, model: &LatentDiffusion) -> Result<()> {
        let differs = |why: String| Err(Error::format(self.checkpoint.path(), why));
        let (own, latent) = (self.network.config().in_channels, model.config.channels);
        if own != latent {
            return differs(format!("classifies latents of {own} channels, and the model's have {latent}"));
        }
        let trained_on = self.checkpoint.clone().only(&[DIFFUSION]).scope(DIFFUSION);
        if let Some(difference) = detect_schedule::differs(&trained_on, &model.schedule)? {
            return differs(format!(
                "classifies latents of another noise schedule than the model's: {difference} by the model"
            ));
        }
        if trained_on.contains("scale_factor") {
            let (own, scale) = (trained_on.tensor("scale_factor")?.double_value(&[]), model.scale_factor);
            if (own - scale).abs() > 1e-3 * scale {
                return differs(format!(
                    "classifies latents of another scale than the model's: scale_factor {own} in the file, {scale} in the model"
                ));
            }
        }
        if trained_on.contains(LAST_LAYER)
            && let Some(found) = model.vs().variables().get(LAST_LAYER)
        {
            let own = trained_on.tensor(LAST_LAYER)?.to_device(found.device()).to_kind(Kind::Float);
            // Weights in half precision are still the same first stage.
            if own.size() != found.size() || !own.allclose(&found.to_kind(Kind::Float), 1e-2, 1e-3, false) {
                return differs("classifies latents of another first stage than the model's".into());
            }
        }
        if !self.classes.is_empty() && !model.classes.is_empty() && self.classes != model.classes {
            return differs(format!(
                "calls its classes {}, and the model {}",
                self.classes.join(", "),
                model.classes.join(", ")
            ));
        }
        Ok(())
    }

    /// log p(y | x_t), differentiable with respect to `x`.
    ///
    /// # Shapes
    /// - `x`: `[B, C, h, w]` f32; `t`: a step of training, in `0..T`, may be fractional; `labels`: `[B]` i64, on the
    ///   device of `x`
    /// - returns `[B]` f32
    pub fn log_probability(&self, x: &Tensor, t: f64, labels: &Tensor) -> Tensor {
        let t = Tensor::full([x.size()[0]], t, (Kind::Float, x.device()));
        let logits = self.network.forward(x, &t, false); // [B, classes]
        logits.log_softmax(-1, Kind::Float).gather(1, &labels.unsqueeze(1), false).squeeze_dim(1)
    }
}

impl LatentDiffusion {
    /// What tells the noisy latents of this model from those of another, under the names of CompVis' classifier
    /// (`diffusion_model.…`): its schedule, its scale, and the layer before the latent. A classifier's file keeps it.
    pub fn latent_space(&self) -> Vec<(String, Tensor)> {
        let buffers = self.schedule.buffers().into_iter();
        let mut kept: Vec<(String, Tensor)> = buffers
            .filter(|(name, _)| ["betas", "alphas_cumprod"].contains(name))
            .map(|(name, values)| (format!("{DIFFUSION}{name}"), Tensor::from_slice(&values)))
            .collect();
        kept.push((format!("{DIFFUSION}scale_factor"), Tensor::from(self.scale_factor as f32)));
        if let Some(layer) = self.vs().variables().get(LAST_LAYER) {
            kept.push((format!("{DIFFUSION}{LAST_LAYER}"), layer.detach()));
        }
        kept
    }
}
