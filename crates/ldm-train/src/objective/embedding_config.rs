//! `train.embedding`: a learned word of a frozen model.

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// `train.embedding`: trains the vectors of a new word of a frozen model (textual inversion, Gal et al. 2022).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingConfig {
    /// The word, as it stands in prompts: `<cat>`.
    pub token: String,
    /// The number of its vectors.
    #[serde(default = "one")]
    pub vectors: i64,
    /// A text whose tokens the vectors start from, cyclically: a word for the kind of thing.
    pub initial: String,
    /// Captions with the word, drawn at random for each image; if empty, those of the data.
    #[serde(default)]
    pub prompts: Vec<String>,
}

fn one() -> i64 {
    1
}

impl EmbeddingConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the key.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |key: &str, expected: &str, got: &str| {
            Err(Error::expected(format!("train.embedding.{key}"), expected, got))
        };
        if self.token.trim().is_empty() {
            return refuse("token", "a word", "an empty one");
        }
        if self.vectors < 1 {
            return refuse("vectors", "at least 1", &self.vectors.to_string());
        }
        match self.prompts.iter().find(|prompt| !self.occurs_in(prompt)) {
            Some(prompt) => refuse("prompts", &format!("captions with `{}`", self.token), prompt),
            None => Ok(()),
        }
    }

    /// Returns true if a caption has the word.
    pub(crate) fn occurs_in(&self, caption: &str) -> bool {
        caption.to_lowercase().contains(&self.token.to_lowercase())
    }
}
