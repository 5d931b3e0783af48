//! The trait of conditioners, and the unconditional one.

use std::fmt::Debug;

use ldm_core::{Conditioning, Error, Prompt, Result};

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
