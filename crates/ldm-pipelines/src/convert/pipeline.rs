//! The diffusers pipeline of a model.

use ldm_autoencoder::FirstStageConfig;
use ldm_conditioning::ConditionerConfig;
use ldm_core::{Error, Result};

use crate::diffusers::folder::SUPER_RESOLUTION;
use crate::{ConcatKey, ConditioningKey, LatentDiffusionConfig};

/// A diffusers pipeline and the names of its components.
#[derive(Debug, Clone, Copy)]
pub(super) struct DiffusersPipeline {
    pub(super) class: &'static str,
    pub(super) first_stage: &'static str,
    /// The text encoder's folder, its library and class, and that of its tokenizer.
    pub(super) text: Option<(&'static str, [&'static str; 2], &'static str)>,
}

const CLIP: (&str, [&str; 2], &str) = ("text_encoder", ["transformers", "CLIPTextModel"], "CLIPTokenizer");
const BERT: (&str, [&str; 2], &str) = ("bert", ["latent_diffusion", "LDMBertModel"], "BertTokenizer");

/// Tokens of a text, fixed in `LDMTextToImagePipeline`.
const TEXT: i64 = 77;

impl DiffusersPipeline {
    /// The pipeline that samples from the model of `config`.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the key that no pipeline supports.
    pub(super) fn of(config: &LatentDiffusionConfig, scale_factor: f64) -> Result<Self> {
        let unconditional = Self { class: "LDMPipeline", first_stage: "vqvae", text: None };
        let refuse = |key: &str, expected: &str, got: String| {
            Err(Error::invalid(format!("`{key}`: expected {expected}, the only one in diffusers, got {got}")))
        };
        let pipeline = match (config.conditioning_key(), &config.cond_stage_config) {
            (None, _) => unconditional,
            (Some(ConditioningKey::Concat), ConditionerConfig::Identity) => {
                if scale_factor != 1. {
                    return refuse("scale_factor", "1 for super-resolution", scale_factor.to_string());
                }
                Self { class: SUPER_RESOLUTION, ..unconditional }
            }
            (Some(ConditioningKey::Crossattn), ConditionerConfig::Bert(bert)) => {
                if bert.max_seq_len != TEXT {
                    return refuse("max_seq_len", "77", bert.max_seq_len.to_string());
                }
                Self { class: "LDMTextToImagePipeline", text: Some(BERT), ..unconditional }
            }
            (
                Some(key @ (ConditioningKey::Crossattn | ConditioningKey::Hybrid)),
                ConditionerConfig::ClipText(clip),
            ) => {
                if !matches!(config.first_stage_config, FirstStageConfig::Kl(_)) {
                    return refuse(
                        "first_stage_config.target",
                        "kl for Stable Diffusion",
                        "vq or identity".into(),
                    );
                }
                if clip.max_length != clip.max_position_embeddings {
                    let expected = format!("{}, the max_position_embeddings", clip.max_position_embeddings);
                    return refuse("max_length", &expected, clip.max_length.to_string());
                }
                let hybrid = key == ConditioningKey::Hybrid;
                if hybrid && config.concat_keys() != [ConcatKey::Mask, ConcatKey::MaskedImage] {
                    return refuse(
                        "concat_keys",
                        "[mask, masked_image]",
                        format!("{:?}", config.concat_keys()),
                    );
                }
                let class = if hybrid { "StableDiffusionInpaintPipeline" } else { "StableDiffusionPipeline" };
                Self { class, first_stage: "vae", text: Some(CLIP) }
            }
            (Some(key), conditioner) => {
                let word = serde_json::to_value(conditioner).unwrap_or_default();
                let word = word["target"].as_str().or_else(|| word.as_str()).unwrap_or("this").to_owned();
                return refuse(
                    "cond_stage_config",
                    "none, clip_text or bert by crossattn, clip_text by hybrid, or identity by concat",
                    format!("{word} by {}", key.name()),
                );
            }
        };
        Ok(pipeline)
    }
}
