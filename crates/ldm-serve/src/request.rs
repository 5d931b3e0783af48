//! Requests for images, of every API.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A request for images. Whatever it leaves out is the model's default.
///
/// Images, masks and maps are base64 of a PNG, JPEG, WebP, BMP, GIF or TIFF file, or a `data:` URL of one; a URL that would
/// have to be fetched is refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationRequest {
    /// The model's name; the first of the server where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The text, for models conditioned on one.
    pub prompt: String,
    /// The text to guide away from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub negative_prompt: String,
    /// The class by number or name, for models conditioned on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Labeled boxes, for models conditioned on a layout.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layout: Vec<BoxRequest>,
    /// The image that a super-resolution model enlarges, an inpainting model completes, and every other model starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The mask: white, or opaque where the file has transparent pixels, is sampled anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// The label map of a model conditioned on one: gray levels or palette indices are the classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_map: Option<String>,
    /// The denoising strength of an initial image, 0 to 1. Default: 0.75, and 1 with a mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// The pixels over which the sampled part fades into the image, inside the border of the mask.
    #[serde(skip_serializing_if = "is_default")]
    pub feather: u32,
    /// The seed of the first image; image i has seed + i. Default: a random one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// The number of images. Default: 1.
    #[serde(skip_serializing_if = "is_one")]
    pub n: usize,
    /// Height in pixels, with `width`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<i64>,
    /// Width in pixels, with `height`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<i64>,
    /// The number of steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// The sampler, as `--sampler` of the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampler: Option<String>,
    /// The spacing of the timesteps, as `--spacing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spacing: Option<String>,
    /// η of a stochastic sampler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// The scale of classifier-free guidance; 1 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_scale: Option<f64>,
    /// Rescaling of the guided prediction, 0 to 1.
    #[serde(skip_serializing_if = "is_default")]
    pub guidance_rescale: f64,
    /// The noise-to-signal ratios `[low, high]` that are guided; `null` is no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_interval: Option<[Option<f64>; 2]>,
    /// The layer of CLIP's text model, counted from the last, which is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_skip: Option<u32>,
    /// The syntax of the texts: `plain`, or `weights` as of web UIs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_syntax: Option<String>,
    /// A second pass over the enlarged image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hires: Option<HiresRequest>,
    /// Sampling in overlapping tiles of this side in pixels, or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile: Option<String>,
    /// Interpolation of the noise toward that of another seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variation: Option<VariationRequest>,
    /// LoRAs of the server's folder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraRequest>,
    /// The share of similar tokens that are merged: faster, less exact.
    #[serde(skip_serializing_if = "is_default")]
    pub token_merging: f64,
    /// `INTERVAL` or `INTERVAL:DEPTH` of reused features: faster, less exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deep_cache: Option<String>,
    /// Also keep the sampled latents, as safetensors.
    #[serde(skip_serializing_if = "is_default")]
    pub latents: bool,
}

/// A labeled box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BoxRequest {
    /// The class, by name or number.
    pub label: String,
    /// `[x, y, width, height]` as fractions of the image.
    #[serde(rename = "box")]
    pub rect: [f64; 4],
}

/// A second pass over the enlarged image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HiresRequest {
    /// The factor, above 1 and at most 8.
    pub scale: f64,
    /// The denoising strength of the second pass.
    #[serde(default = "hires_strength")]
    pub strength: f64,
    /// Its steps; those of the first pass where absent.
    #[serde(default)]
    pub steps: Option<usize>,
}

/// Interpolation of the noise toward that of another seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VariationRequest {
    /// The other seed; image i has seed + i.
    pub seed: u64,
    /// 0 is the noise of the image's own seed, 1 that of the other.
    pub strength: f64,
}

/// A LoRA of the server's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraRequest {
    /// The file's name without its extension.
    pub name: String,
    /// The strength.
    #[serde(default = "one")]
    pub weight: f64,
}

fn hires_strength() -> f64 {
    ldm::Hires::STRENGTH
}

fn one() -> f64 {
    1.
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(count: &usize) -> bool {
    *count <= 1
}

impl GenerationRequest {
    /// The number of images.
    pub(crate) fn images(&self) -> usize {
        self.n.max(1)
    }

    /// The noise-to-signal ratios that are guided.
    pub(crate) fn guided_levels(&self) -> Option<[f64; 2]> {
        self.guidance_interval.map(|[low, high]| [low.unwrap_or(0.), high.unwrap_or(f64::INFINITY)])
    }

    /// Bytes in the journal.
    pub(crate) fn bytes(&self) -> u64 {
        serde_json::to_string(self).expect("strings and numbers").len() as u64
    }

    /// The request without what may differ between the images of a batch: requests with equal keys are sampled together.
    /// Requests with an image, a mask or a map have the file names of their jobs in them, and so keys of their own.
    pub(crate) fn batch_key(&self) -> String {
        let key = Self {
            prompt: String::new(),
            negative_prompt: String::new(),
            seed: None,
            n: 1,
            variation: self.variation.map(|to| VariationRequest { seed: 0, ..to }),
            latents: false,
            ..self.clone()
        };
        serde_json::to_string(&key).expect("strings and numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_says_nothing_has_defaults() {
        let empty: GenerationRequest = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, GenerationRequest::default());
        assert_eq!(empty.images(), 1);
        assert_eq!(serde_json::to_string(&empty).unwrap(), r#"{"prompt":""}"#);
        assert!(serde_json::from_str::<GenerationRequest>(r#"{"promt":"a"}"#).is_err());
    }

    #[test]
    fn images_of_other_prompts_and_seeds_share_a_batch() {
        let of = |text: &str| serde_json::from_str::<GenerationRequest>(text).unwrap().batch_key();
        let key = of(r#"{"prompt":"a","seed":1,"steps":4}"#);
        assert_eq!(
            key,
            of(r#"{"prompt":"b","negative_prompt":"c","seed":2,"n":3,"steps":4,"latents":true}"#)
        );
        for other in [r#"{"steps":5}"#, r#"{"steps":4,"width":64,"height":64}"#, r#"{"steps":4,"model":"x"}"#]
        {
            assert_ne!(key, of(other), "{other}");
        }
    }
}
