//! Configuration of CompVis' embedders by OpenAI's CLIP.

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::checks::at_least_one;

/// Sizes of OpenAI's CLIP, by the names of its constructor (openai/CLIP `model.py:243`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiSizes {
    /// `P`, channels of an embedding.
    pub embed_dim: i64,
    /// Side of the images, in pixels.
    pub image_resolution: i64,
    /// Layers of the vision transformer.
    pub vision_layers: i64,
    /// Channels of the vision transformer, a multiple of 64.
    pub vision_width: i64,
    /// Side of a patch, in pixels.
    pub vision_patch_size: i64,
    /// Number of position embeddings of the text model.
    pub context_length: i64,
    /// Vocabulary size.
    pub vocab_size: i64,
    /// Channels of the text model.
    pub transformer_width: i64,
    /// Heads of the text model, a divisor of its channels.
    pub transformer_heads: i64,
    /// Layers of the text model.
    pub transformer_layers: i64,
}

/// The vision transformers among OpenAI's models for images of 224 pixels: name, and `embed_dim`, `vision_layers`,
/// `vision_width`, `vision_patch_size` and `transformer_width`.
const VERSIONS: [(&str, [i64; 5]); 3] = [
    ("ViT-B/32", [512, 12, 768, 32, 512]),
    ("ViT-B/16", [512, 12, 768, 16, 512]),
    ("ViT-L/14", [768, 24, 1024, 14, 768]),
];

impl OpenAiSizes {
    /// The sizes of a published model: `ViT-B/32`, `ViT-B/16` or `ViT-L/14`.
    pub fn of_version(version: &str) -> Option<Self> {
        let (_, sizes) = VERSIONS.iter().find(|(name, _)| *name == version)?;
        let [embed_dim, vision_layers, vision_width, vision_patch_size, transformer_width] = *sizes;
        Some(Self {
            embed_dim,
            image_resolution: 224,
            vision_layers,
            vision_width,
            vision_patch_size,
            context_length: 77,
            vocab_size: 49408,
            transformer_width,
            transformer_heads: transformer_width / 64,
            transformer_layers: 12,
        })
    }

    fn check(&self) -> Result<()> {
        at_least_one(
            "sizes",
            &[
                ("embed_dim", self.embed_dim),
                ("image_resolution", self.image_resolution),
                ("vision_layers", self.vision_layers),
                ("vision_width", self.vision_width),
                ("vision_patch_size", self.vision_patch_size),
                ("context_length", self.context_length),
                ("vocab_size", self.vocab_size),
                ("transformer_width", self.transformer_width),
                ("transformer_heads", self.transformer_heads),
                ("transformer_layers", self.transformer_layers),
            ],
        )?;
        if self.vision_width % 64 != 0 {
            return Err(Error::expected("sizes: vision_width", "a multiple of 64", self.vision_width));
        }
        if self.transformer_width % self.transformer_heads != 0 {
            let expected = format!("a divisor of transformer_width {}", self.transformer_width);
            return Err(Error::expected("sizes: transformer_heads", expected, self.transformer_heads));
        }
        if self.image_resolution < self.vision_patch_size {
            let expected = format!("at least vision_patch_size {}", self.vision_patch_size);
            return Err(Error::expected("sizes: image_resolution", expected, self.image_resolution));
        }
        Ok(())
    }
}

/// The sizes of a config: `sizes`, or those of the published model `version`, which the field `key` names.
fn sizes_of(key: &str, version: &str, sizes: Option<OpenAiSizes>) -> Result<OpenAiSizes> {
    let names = VERSIONS.map(|(name, _)| name).join(", ");
    let sizes = sizes
        .or_else(|| OpenAiSizes::of_version(version))
        .ok_or_else(|| Error::expected(key, format!("{names}, or `sizes`"), version))?;
    sizes.check().map(|()| sizes)
}

/// Configuration of CompVis' `FrozenCLIPTextEmbedder`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipTextPooledConfig {
    /// The published model that `sizes` defaults to; weights come with the model.
    pub version: String,
    /// CompVis' device. Inert: the weights decide the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// CompVis' length. Inert: it is the model's `context_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<i64>,
    /// Number of copies of the embedding in the context.
    pub n_repeat: i64,
    /// Scale embeddings to unit length.
    pub normalize: bool,
    /// Sizes of another model than `version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sizes: Option<OpenAiSizes>,
}

impl Default for ClipTextPooledConfig {
    fn default() -> Self {
        Self {
            version: "ViT-L/14".into(),
            device: None,
            max_length: None,
            n_repeat: 1,
            normalize: true,
            sizes: None,
        }
    }
}

impl ClipTextPooledConfig {
    /// The sizes of CLIP.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown `version` without `sizes`, and for invalid sizes.
    pub fn sizes(&self) -> Result<OpenAiSizes> {
        at_least_one("clip_text_pooled conditioning", &[("n_repeat", self.n_repeat)])?;
        sizes_of("version", &self.version, self.sizes)
    }
}

/// Configuration of CompVis' `FrozenClipImageEmbedder`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipImageConfig {
    /// The published model that `sizes` defaults to; weights come with the model.
    pub model: String,
    /// TorchScript. Inert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jit: Option<bool>,
    /// CompVis' device. Inert: the weights decide the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// A blur before the image is resized, which is not implemented: `true` is refused.
    #[serde(default)]
    pub antialias: bool,
    /// Sizes of another model than `model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<OpenAiSizes>,
}

impl ClipImageConfig {
    /// The sizes of CLIP.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown `model` without `sizes`, for invalid sizes, and for `antialias`.
    pub fn sizes(&self) -> Result<OpenAiSizes> {
        if self.antialias {
            return Err(Error::expected("antialias", "false, the default", "true"));
        }
        sizes_of("model", &self.model, self.sizes)
    }
}
