//! The trait of conditioners, and the unconditional one.

use std::fmt::Debug;

use ldm_core::{Conditioning, Error, Prompt, Result};
use tch::Tensor;

use crate::{TextOptions, TextualInversion};

/// Converts a prompt to the conditioning of the U-Net.
pub trait Conditioner: Debug + Send {
    /// Computes the conditioning of a batch of prompts. Inputs may be on any device.
    ///
    /// # Errors
    /// If the prompt lacks an input that the model is conditioned on, or has an invalid one.
    fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning>;

    /// Returns the null prompt of a batch, which replaces dropped prompts in training and is the unconditional half of
    /// classifier-free guidance (Ho & Salimans 2022, §3.2).
    ///
    /// # Errors
    /// If the model has no null prompt, and so cannot be guided, or the null prompt depends on the shape of a prompt
    /// ([`null_like`](Self::null_like)).
    fn null_prompt(&self, batch: i64) -> Result<Prompt>;

    /// Returns the null prompt for `prompt`: [`null_prompt`](Self::null_prompt), and for embeddings zeros of their shape.
    ///
    /// # Errors
    /// If the model has no null prompt, and so cannot be guided.
    fn null_like(&self, prompt: &Prompt) -> Result<Prompt> {
        let batch =
            prompt.batch().ok_or_else(|| Error::invalid("prompt: expected at least one input, got none"))?;
        self.null_prompt(batch)
    }

    /// Computes the conditioning of [`null_prompt`](Self::null_prompt).
    ///
    /// # Errors
    /// As [`null_prompt`](Self::null_prompt).
    fn unconditional(&self, batch: i64) -> Result<Conditioning> {
        self.condition(&self.null_prompt(batch)?, false)
    }

    /// Computes the conditioning of [`null_like`](Self::null_like).
    ///
    /// # Errors
    /// As [`null_like`](Self::null_like).
    fn unconditional_like(&self, prompt: &Prompt) -> Result<Conditioning> {
        self.condition(&self.null_like(prompt)?, false)
    }

    /// Computes the conditioning of a batch of texts read with `options`, to sample from.
    ///
    /// # Errors
    /// As [`condition`](Self::condition); [`Error::Invalid`] for options that the model does not have, and for a weight
    /// that is no number.
    fn condition_text(&self, prompt: &Prompt, options: &TextOptions) -> Result<Conditioning> {
        options.refuse()?;
        self.condition(prompt, false)
    }

    /// Returns the number of chunks of the longest text of a batch, to pad others to ([`TextOptions::chunks`]).
    ///
    /// # Errors
    /// [`Error::Invalid`] for a weight that is no number.
    fn chunks(&self, _prompt: &Prompt, _options: &TextOptions) -> Result<usize> {
        Ok(1)
    }

    /// Adds a learned word: where a text has it, its vectors take the place of the vocabulary's.
    ///
    /// # Errors
    /// [`Error::Invalid`] for vectors of another width than the model's, and for a model without CLIP's text model.
    fn add_embedding(&mut self, embedding: TextualInversion) -> Result<()> {
        let name = format!("embedding `{}`", embedding.token);
        Err(Error::expected(name, "a model with CLIP's text model", "another one"))
    }

    /// Returns the learned words that were added.
    fn learned_words(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the vectors of a text's tokens in the vocabulary, `[n, D]`, from which a learned word can start.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a model without CLIP's text model, and one without a tokenizer.
    fn token_vectors(&self, text: &str) -> Result<Tensor> {
        Err(Error::expected(
            format!("embedding of `{text}`"),
            "a model with CLIP's text model",
            "another one",
        ))
    }

    /// Returns the part of each text that is truncated, so that a caller can warn; empty for models that read no text.
    fn cut(&self, _prompt: &Prompt) -> Vec<Option<String>> {
        Vec::new()
    }
}

/// No condition: CompVis' `__is_unconditional__`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unconditional;

impl Conditioner for Unconditional {
    fn condition(&self, _prompt: &Prompt, _train: bool) -> Result<Conditioning> {
        Ok(Conditioning::default())
    }

    fn null_prompt(&self, _batch: i64) -> Result<Prompt> {
        Ok(Prompt::default())
    }

    fn null_like(&self, _prompt: &Prompt) -> Result<Prompt> {
        Ok(Prompt::default())
    }
}
