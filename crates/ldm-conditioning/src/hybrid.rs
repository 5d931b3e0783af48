//! Two conditioners in one: one is concatenated to the latent, the other attended to.

use ldm_core::{Conditioning, Error, Prompt, Result};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

use crate::{Conditioner, ConditionerConfig, TextOptions, TextualInversion, Tokenizer};

/// Configuration of a [`HybridConditioner`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HybridConfig {
    /// The conditioner whose map is concatenated: `spatial`, or `identity` for an image of the latent's size.
    pub c_concat_config: Box<ConditionerConfig>,
    /// The conditioner whose tokens are attended to.
    pub c_crossattn_config: Box<ConditionerConfig>,
}

/// A map or an image through one conditioner, and a class, text, layout or embedding through another, for
/// `conditioning_key: hybrid`.
///
/// CompVis `diffusionmodules/util.py:251` `HybridConditioner`, with its names of weights.
#[derive(Debug)]
pub struct HybridConditioner {
    concat: Box<dyn Conditioner>,
    crossattn: Box<dyn Conditioner>,
}

impl HybridConditioner {
    /// Builds both conditioners at `vs`; the tokenizer is that of the text.
    ///
    /// # Errors
    /// As [`ConditionerConfig::build`]; [`Error::Invalid`] when one of them has the output of the other.
    pub fn new(vs: &nn::Path, config: &HybridConfig, tokenizer: Option<Tokenizer>) -> Result<Self> {
        let HybridConfig { c_concat_config, c_crossattn_config } = config;
        match **c_concat_config {
            ConditionerConfig::Spatial(_) | ConditionerConfig::Identity => {}
            _ => {
                return Err(Error::invalid(
                    "c_concat_config: expected spatial or identity, which output a map, got another conditioner",
                ));
            }
        }
        match **c_crossattn_config {
            ConditionerConfig::Unconditional
            | ConditionerConfig::FirstStage
            | ConditionerConfig::Spatial(_)
            | ConditionerConfig::Hybrid(_) => {
                return Err(Error::invalid(
                    "c_crossattn_config: expected a conditioner that outputs tokens, got another",
                ));
            }
            _ => {}
        }
        Ok(Self {
            concat: c_concat_config.build(&(vs / "concat_conditioner"), None)?,
            crossattn: c_crossattn_config.build(&(vs / "crossattn_conditioner"), tokenizer)?,
        })
    }
}

impl HybridConditioner {
    /// The concatenated part, where the prompt has an image or a map.
    fn concat(&self, prompt: &Prompt, train: bool) -> Result<Option<Tensor>> {
        if prompt.image.is_none() && prompt.mask.is_none() {
            return Ok(None);
        }
        Ok(self.concat.condition(prompt, train)?.concat)
    }
}

impl Conditioner for HybridConditioner {
    /// Computes both parts; no concat for a prompt without an image and a map, such as the null prompt.
    fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning> {
        let context = self.crossattn.condition(prompt, train)?.context;
        Ok(Conditioning { concat: self.concat(prompt, train)?, context, label: None })
    }

    fn condition_text(&self, prompt: &Prompt, options: &TextOptions) -> Result<Conditioning> {
        let context = self.crossattn.condition_text(prompt, options)?.context;
        Ok(Conditioning { concat: self.concat(prompt, false)?, context, label: None })
    }

    fn chunks(&self, prompt: &Prompt, options: &TextOptions) -> Result<usize> {
        self.crossattn.chunks(prompt, options)
    }

    fn add_embedding(&mut self, embedding: TextualInversion) -> Result<()> {
        self.crossattn.add_embedding(embedding)
    }

    fn learned_words(&self) -> Vec<String> {
        self.crossattn.learned_words()
    }

    fn token_vectors(&self, text: &str) -> Result<Tensor> {
        self.crossattn.token_vectors(text)
    }

    /// Returns the null prompt of the attended part; there is no null map.
    fn null_prompt(&self, batch: i64) -> Result<Prompt> {
        self.crossattn.null_prompt(batch)
    }

    fn null_like(&self, prompt: &Prompt) -> Result<Prompt> {
        self.crossattn.null_like(prompt)
    }

    fn cut(&self, prompt: &Prompt) -> Vec<Option<String>> {
        self.crossattn.cut(prompt)
    }
}
