//! Textual inversion: the training of a new word's vectors (Gal et al. 2022, eq. 2).
//!
//! The vectors are an input of the frozen text model, so the whole graph from the loss to them is kept, and no other tensor
//! takes a gradient.

use std::sync::atomic::AtomicBool;

use ldm_checkpoint::Checkpoint;
use ldm_conditioning::TextualInversion;
use ldm_core::{Error, NoiseSource, Prompt, Result};
use ldm_data::Batch;
use tch::{Device, Kind, Tensor};

use crate::config::SampleConfig;
use crate::objective::diffusion::DiffusionObjective;
use crate::objective::embedding_config::EmbeddingConfig;
use crate::objective::lora::fingerprint;
use crate::objective::{
    Export, Exported, LatentEncoder, Loss, NamedTensors, Objective, Phase, Preview, StepInfo, Validate,
};
use crate::optim::copy_named;

/// The tensors of a checkpoint.
const BASE: &str = "embedding.base";
const VECTORS: &str = "embedding.vectors";

/// A frozen diffusion model with a new word, whose vectors are trained.
#[derive(Debug)]
pub struct EmbeddingObjective {
    inner: DiffusionObjective,
    config: EmbeddingConfig,
    /// `[n, D]`; the text model holds the same tensor.
    vectors: Tensor,
    /// SHA-256 of the frozen model, `[32]` u8; checkpoints hold only the vectors.
    base: Tensor,
}

impl EmbeddingObjective {
    /// Freezes the model of `inner`, whose trained weights are loaded, and adds the word of `config`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an invalid config, a text model other than CLIP's, and one without a tokenizer.
    pub fn new(mut inner: DiffusionObjective, config: &EmbeddingConfig) -> Result<Self> {
        config.check()?;
        let mut weights = inner.weights();
        weights.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, tensor) in &weights {
            let _ = tensor.set_requires_grad(false);
        }
        let start = inner.conditioner().token_vectors(&config.initial)?; // [tokens, D]
        if start.size()[0] == 0 {
            return Err(Error::expected(
                "train.embedding.initial",
                "a word of the vocabulary",
                "an empty text",
            ));
        }
        let rows: Vec<i64> = (0..config.vectors).map(|row| row % start.size()[0]).collect();
        let rows = Tensor::from_slice(&rows).to_device(start.device());
        let vectors = start.index_select(0, &rows).to_kind(Kind::Float).set_requires_grad(true);
        let word = TextualInversion { token: config.token.clone(), vectors: vectors.shallow_clone() };
        inner.conditioner_mut().add_embedding(word)?;
        Ok(Self { base: fingerprint(&weights), inner, config: config.clone(), vectors })
    }

    /// The batch with the captions of `choice` among those of the config, else its first; with its own if it has none.
    fn with_captions(&self, batch: &Batch, choice: Option<&Tensor>) -> Result<Batch> {
        let prompts = &self.config.prompts;
        let prompt = match batch.prompt.batch() {
            Some(count) => batch.prompt.narrow(0, count),
            None => Prompt::default(),
        };
        let text = match (prompts.first(), choice) {
            (None, _) => prompt.text.clone(),
            (Some(_), Some(choice)) => {
                let choice = Vec::<i64>::try_from(choice.to_device(Device::Cpu))?;
                Some(choice.into_iter().map(|index| prompts[index as usize].clone()).collect())
            }
            (Some(first), None) => Some(vec![first.clone(); batch.images.size()[0] as usize]),
        };
        Ok(Batch {
            images: batch.images.shallow_clone(),
            latents: batch.latents.as_ref().map(Tensor::shallow_clone),
            prompt: Prompt { text, tokens: None, ..prompt },
            crops: batch.crops.clone(),
            label_map: batch.label_map.as_ref().map(Tensor::shallow_clone),
            names: batch.names.clone(),
        })
    }
}

impl Objective for EmbeddingObjective {
    fn check_size(&self, size: [i64; 2]) -> Result<()> {
        self.inner.check_size(size)
    }

    fn activations(&self, size: [i64; 2], cached: bool) -> i64 {
        self.inner.activations(size, cached)
    }

    fn check_batch(&self, batch: &Batch) -> Result<()> {
        let batch = self.with_captions(batch, None)?;
        self.inner.check_batch(&batch)?;
        let captions = batch.prompt.text.unwrap_or_default();
        if captions.iter().any(|caption| self.config.occurs_in(caption)) {
            return Ok(());
        }
        let name = batch.names.first().map_or("the data", String::as_str);
        let token = &self.config.token;
        Err(Error::data(
            name,
            format!("expected a caption with `{token}`, got none; try train.embedding.prompts"),
        ))
    }

    fn phases(&self) -> Vec<Phase> {
        vec![Phase::new("embedding", vec![(VECTORS.into(), self.vectors.shallow_clone())])]
    }

    fn loss(&self, info: StepInfo, batch: &Batch, noise: &mut dyn NoiseSource) -> Result<Loss> {
        let count = self.config.prompts.len() as i64;
        let choice = (count > 0).then(|| noise.integers(count, batch.images.size()[0], &batch.images));
        self.inner.loss(info, &self.with_captions(batch, choice.as_ref())?, noise)
    }

    /// The vectors, and the SHA-256 of their base.
    fn weights(&self) -> NamedTensors {
        vec![(BASE.into(), self.base.shallow_clone()), (VECTORS.into(), self.vectors.shallow_clone())]
    }

    fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        if checkpoint.tensor(BASE)? != self.base {
            let message = "expected an embedding of this base model, got one of another model; the model of \
                           train.init_from has changed";
            return Err(Error::format(checkpoint.path(), message));
        }
        copy_named(vec![(VECTORS.into(), self.vectors.shallow_clone())], &checkpoint.without(&[BASE]))
    }

    fn notes(&self) -> Vec<String> {
        self.inner.notes()
    }

    fn as_validate(&self) -> Option<&dyn Validate> {
        Some(self)
    }

    fn as_preview(&self) -> Option<&dyn Preview> {
        Some(self)
    }

    fn as_export(&self) -> Option<&dyn Export> {
        Some(self)
    }

    /// That of the base.
    fn as_latent_encoder(&self) -> Option<&dyn LatentEncoder> {
        self.inner.as_latent_encoder()
    }
}

impl Validate for EmbeddingObjective {
    fn validate(&self, batches: &mut dyn Iterator<Item = Result<Batch>>) -> Result<Vec<(&'static str, f64)>> {
        self.inner.validate(&mut batches.map(|batch| self.with_captions(&batch?, None)))
    }
}

impl Preview for EmbeddingObjective {
    fn check(&self, config: &SampleConfig) -> Result<()> {
        self.inner.check(config)
    }

    fn preview(&self, batch: &Batch, config: &SampleConfig, stop: &AtomicBool) -> Result<Tensor> {
        self.inner.preview(&self.with_captions(batch, None)?, config, stop)
    }
}

impl Export for EmbeddingObjective {
    fn export(&self, ema: &[(String, Tensor)]) -> Result<Exported> {
        let averaged = ema.iter().find(|(name, _)| name == VECTORS).map(|(_, tensor)| tensor);
        let vectors = averaged.unwrap_or(&self.vectors).detach().copy();
        Ok(Exported::Embedding(TextualInversion { token: self.config.token.clone(), vectors }))
    }
}
