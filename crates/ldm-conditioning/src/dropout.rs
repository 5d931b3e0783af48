//! Conditioning dropout: what classifier-free guidance is trained with.

use ldm_core::{Error, NoiseSource, Prompt, Result};

use crate::Conditioner;

/// Replaces each sample's prompt by the null prompt with some probability, so that one network learns both halves
/// of classifier-free guidance (Ho & Salimans 2022, algorithm 1). The reference has none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PromptDropout {
    probability: f64,
}

impl PromptDropout {
    /// Dropout with the given probability.
    ///
    /// # Errors
    /// When it is not in `[0, 1]`.
    pub fn new(probability: f64) -> Result<Self> {
        if (0. ..=1.).contains(&probability) {
            Ok(Self { probability })
        } else {
            Err(Error::invalid(format!(
                "conditioning dropout: expected a probability in [0, 1], got {probability}"
            )))
        }
    }

    /// Drops prompts of a batch, by one uniform number a sample. With probability 0, and for prompts without a
    /// class, nothing is drawn and nothing changes.
    ///
    /// # Errors
    /// When the conditioner has no null prompt.
    pub fn apply(
        &self,
        conditioner: &dyn Conditioner,
        prompt: Prompt,
        noise: &mut dyn NoiseSource,
    ) -> Result<Prompt> {
        if self.probability == 0. {
            return Ok(prompt);
        }
        let Some(class) = &prompt.class else { return Ok(prompt) };
        let batch = class.size1()?;
        let Some(null) = conditioner.null_prompt(batch)?.class else { return Ok(prompt) };
        let null = null.to_device(class.device()).to_kind(class.kind());
        let dropped = noise.uniform(batch, class).lt(self.probability); // [B]
        let class = null.where_self(&dropped, class);
        Ok(Prompt { class: Some(class), ..prompt })
    }
}
