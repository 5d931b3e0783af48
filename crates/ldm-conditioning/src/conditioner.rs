//! The trait, and the conditioner that says nothing.

use std::fmt::Debug;

use ldm_core::{Conditioning, Error, Prompt, Result};

/// Turns what a person said into what the U-Net is told.
pub trait Conditioner: Debug + Send {
    /// The conditioning of a batch of prompts. It reads what it needs of the prompt, on any device.
    ///
    /// # Errors
    /// When the prompt lacks what the model is conditioned on, or says what the model does not know.
    fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning>;

    /// The prompt that says nothing, for a batch: what prompts dropped in training become, and the other half of
    /// classifier-free guidance (Ho & Salimans 2022, §3.2).
    ///
    /// # Errors
    /// When the model has no way to say nothing, and so cannot be guided, or when what says nothing must have the
    /// shape of what is said ([`null_like`](Self::null_like)).
    fn null_prompt(&self, batch: i64) -> Result<Prompt>;

    /// The prompt that says nothing beside `prompt`: as [`null_prompt`](Self::null_prompt), and for embeddings zeros
    /// of their shape.
    ///
    /// # Errors
    /// When the model has no way to say nothing, and so cannot be guided.
    fn null_like(&self, prompt: &Prompt) -> Result<Prompt> {
        let batch = prompt.batch().ok_or_else(|| Error::invalid("the prompt says nothing of any kind"))?;
        self.null_prompt(batch)
    }

    /// The conditioning of [`null_prompt`](Self::null_prompt).
    ///
    /// # Errors
    /// As [`null_prompt`](Self::null_prompt).
    fn unconditional(&self, batch: i64) -> Result<Conditioning> {
        self.condition(&self.null_prompt(batch)?, false)
    }

    /// The conditioning of [`null_like`](Self::null_like).
    ///
    /// # Errors
    /// As [`null_like`](Self::null_like).
    fn unconditional_like(&self, prompt: &Prompt) -> Result<Conditioning> {
        self.condition(&self.null_like(prompt)?, false)
    }

    /// Of each text of the prompt, the part that is too long for the model and that it does not see, for a caller
    /// that wants to warn; empty where the model reads no text.
    fn cut(&self, _prompt: &Prompt) -> Vec<Option<String>> {
        Vec::new()
    }
}

/// No condition at all: the reference's `__is_unconditional__`.
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
