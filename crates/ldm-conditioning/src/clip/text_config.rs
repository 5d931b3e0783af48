//! Configuration of CLIP's text model.

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::checks::at_least_one;

/// CLIP's text model: CompVis' three fields, and under transformers' names the sizes that it downloads
/// by `version`. The defaults are those of ViT-L/14.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipTextConfig {
    /// Weights that CompVis downloads. Inert: weights come with the model, sizes are the fields below.
    pub version: String,
    /// CompVis' device. Inert: the weights decide the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `L`, the number of tokens that texts are truncated and padded to.
    pub max_length: i64,
    /// `D`, channels of a token.
    pub hidden_size: i64,
    /// Channels within a feed-forward layer.
    pub intermediate_size: i64,
    /// Layers of attention and feed-forward.
    pub num_hidden_layers: i64,
    /// Attention heads, a divisor of `hidden_size`.
    pub num_attention_heads: i64,
    /// Vocabulary size.
    pub vocab_size: i64,
    /// Number of position embeddings.
    pub max_position_embeddings: i64,
    /// Activation of a feed-forward layer.
    pub hidden_act: Activation,
    /// Eps of the layer norms.
    pub layer_norm_eps: f64,
}

/// Activations, by transformers' names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·σ(1.702 x), of OpenAI's CLIP.
    #[default]
    QuickGelu,
    /// x·Φ(x), exactly.
    Gelu,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            version: "openai/clip-vit-large-patch14".into(),
            device: None,
            max_length: 77,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            vocab_size: 49408,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl ClipTextConfig {
    /// Checks the sizes.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |message| Err(Error::invalid(format!("clip_text conditioning: {message}")));
        at_least_one(
            "clip_text conditioning",
            &[
                ("max_length", self.max_length),
                ("hidden_size", self.hidden_size),
                ("intermediate_size", self.intermediate_size),
                ("num_hidden_layers", self.num_hidden_layers),
                ("num_attention_heads", self.num_attention_heads),
                ("vocab_size", self.vocab_size),
                ("max_position_embeddings", self.max_position_embeddings),
            ],
        )?;
        if self.hidden_size % self.num_attention_heads != 0 {
            return refuse(format!(
                "num_attention_heads: expected a divisor of hidden_size {}, got {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if self.max_length > self.max_position_embeddings {
            return refuse(format!(
                "max_length: expected at most max_position_embeddings {}, got {}",
                self.max_position_embeddings, self.max_length
            ));
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps > 0.) {
            return refuse(format!(
                "layer_norm_eps: expected a positive number, got {}",
                self.layer_norm_eps
            ));
        }
        Ok(())
    }
}
