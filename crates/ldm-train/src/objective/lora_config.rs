//! `train.lora`: adapters of a frozen model.

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// `train.lora`: trains low-rank adapters of frozen weights. Hu et al. 2021.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// The rank `r` of the adapters.
    pub rank: i64,
    /// α of the scale `alpha / rank`; if absent, the rank.
    pub alpha: Option<f64>,
    /// The adapted layers.
    pub targets: Vec<LoraTarget>,
    /// Also adapts the text encoder, not only the U-Net.
    pub text_encoder: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 8, alpha: None, targets: vec![LoraTarget::Attention], text_encoder: false }
    }
}

/// A kind of layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraTarget {
    /// Query, key, value and output projections of attention.
    Attention,
    /// The two layers of feed-forward blocks.
    FeedForward,
    /// Input and output projections of transformers, and output projections of plain attention.
    Projections,
    /// Convolutions of residual blocks, downsampling and upsampling.
    Convolutions,
}

impl LoraTarget {
    /// Name suffixes of its layers.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Attention => &[
                ".to_q",
                ".to_k",
                ".to_v",
                ".to_out",
                ".to_out.0",
                ".qkv",
                ".q_proj",
                ".k_proj",
                ".v_proj",
                ".out_proj",
            ],
            Self::FeedForward => {
                &[".ff.net.0.proj", ".ff.net.2", ".1.net.0.0", ".1.net.2", ".mlp.fc1", ".mlp.fc2"]
            }
            Self::Projections => &[".proj_in", ".proj_out"],
            Self::Convolutions => &[".in_layers.2", ".out_layers.3", ".skip_connection", ".op", ".conv"],
        }
    }
}

pub(crate) const UNET: &str = "model.diffusion_model.";
pub(crate) const TEXT_ENCODER: &str = "cond_stage_model.";

impl LoraConfig {
    /// α, the numerator of the scale.
    pub fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(self.rank as f64)
    }

    /// True if the weight of this name gets an adapter.
    pub fn selects(&self, weight: &str) -> bool {
        let Some(module) = weight.strip_suffix(".weight") else { return false };
        let root = module.starts_with(UNET) || (self.text_encoder && module.starts_with(TEXT_ENCODER));
        root && self
            .targets
            .iter()
            .flat_map(|target| target.suffixes())
            .any(|suffix| module.ends_with(suffix))
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the key.
    pub(crate) fn check(&self) -> Result<()> {
        if self.rank < 1 {
            return Err(Error::invalid(format!("train.lora.rank: expected at least 1, got {}", self.rank)));
        }
        if !(self.alpha().is_finite() && self.alpha() > 0.) {
            let got = self.alpha();
            return Err(Error::invalid(format!("train.lora.alpha: expected a positive number, got {got}")));
        }
        if self.targets.is_empty() {
            return Err(Error::invalid("train.lora.targets: expected at least one kind of layer, got none"));
        }
        Ok(())
    }
}
