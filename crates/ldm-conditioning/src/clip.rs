//! How well texts and images go together.

use std::path::Path;

use ldm_checkpoint::Checkpoint;
use ldm_core::diffusers::{Fields, wrong};
use ldm_core::nn::skip_init;
use ldm_core::{Error, Prompt, Result};
use serde_json::Value;
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

use crate::clip_vision::{ClipVision, VisionSizes};
use crate::diffusers::{activation, clip_text};
use crate::{ClipTextEmbedder, Conditioner, Tokenizer, TokenizerKind};

/// Of the images CLIP was trained on, in `[0, 1]` (openai/CLIP `clip.py:85`).
const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const DEVIATION: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
/// One of these is in a folder that has a tokenizer.
const TOKENIZERS: [&str; 3] = ["tokenizer.json", "vocab.json", "bpe_simple_vocab_16e6.txt.gz"];
/// What a folder's weights are called.
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// CLIP (Radford et al. 2021): texts and images as directions in one space, near where they go together. In f32; no
/// parameter takes a gradient. transformers `CLIPModel`.
#[derive(Debug)]
pub struct Clip {
    vs: VarStore,
    text: ClipTextEmbedder,
    vision: ClipVision,
    text_projection: Tensor,   // [P, D]
    visual_projection: Tensor, // [P, D']
    side: i64,
}

impl Clip {
    /// From a folder of transformers: `config.json`, `model.safetensors` or `pytorch_model.bin`, and a tokenizer, without
    /// which it takes tokens alone.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] and [`Error::Invalid`] when a file is missing, damaged, or of another model;
    /// [`Error::Weights`] listing what does not fit.
    pub fn open(folder: impl AsRef<Path>, device: Device) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|error| Error::format(&path, format!("not JSON: {error}")))?;
        let has_tokenizer = TOKENIZERS.iter().any(|name| folder.join(name).is_file());
        let tokenizer = has_tokenizer.then(|| Tokenizer::open(TokenizerKind::Clip, folder)).transpose()?;
        let clip = skip_init(|| Self::new(&json, tokenizer, device))
            .map_err(|error| Error::format(&path, error.to_string()))?;
        let file = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        let file = file.unwrap_or_else(|| folder.join(WEIGHTS[0]));
        let buffers =
            ["logit_scale", "text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"];
        Checkpoint::open(file)?.without(&buffers).load_scope(&clip.vs, "")?;
        Ok(clip)
    }

    fn new(json: &Value, tokenizer: Option<Tokenizer>, device: Device) -> Result<Self> {
        let fields = Fields::new(json)?;
        if fields.get("model_type").and_then(Value::as_str) != Some("clip") {
            return Err(wrong("model_type", "clip", fields.get("model_type")));
        }
        let part = |key: &str| fields.get(key).ok_or_else(|| wrong(key, "an object", None));
        let config = clip_text(&Fields::new(part("text_config")?)?)?;
        let sizes = vision(&Fields::new(part("vision_config")?)?)?;
        let projection = fields.integer("projection_dim", 512)?;
        let mut vs = VarStore::new(device);
        let root = vs.root();
        let text = ClipTextEmbedder::within(&(&root / "text_model"), &config, tokenizer)?;
        let vision = ClipVision::new(&(&root / "vision_model"), sizes);
        let project = |name: &str, from| (&root / name).var("weight", &[projection, from], Init::Const(0.));
        let text_projection = project("text_projection", config.hidden_size);
        let visual_projection = project("visual_projection", sizes.width);
        vs.freeze();
        Ok(Self { vs, text, vision, text_projection, visual_projection, side: sizes.side })
    }

    /// Side in pixels of the images it takes.
    pub fn side(&self) -> i64 {
        self.side
    }

    /// Of each text, what does not fit.
    pub fn cut(&self, prompt: &Prompt) -> Vec<Option<String>> {
        self.text.cut(prompt)
    }

    /// Directions of texts, or of tokens that end in the greatest.
    ///
    /// # Shapes
    /// - returns `[B, P]` f32, of length one
    ///
    /// # Errors
    /// As [`Conditioner::condition`](crate::Conditioner::condition) of [`ClipTextEmbedder`].
    pub fn texts(&self, prompt: &Prompt) -> Result<Tensor> {
        tch::no_grad(|| Ok(direction(&self.text.pooled(prompt)?.matmul(&self.text_projection.tr()))))
    }

    /// Directions of images.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, S, S]` in `[-1, 1]`, `S` as [`Clip::side`]
    /// - returns `[B, P]` f32, of length one
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape.
    pub fn images(&self, images: &Tensor) -> Result<Tensor> {
        let size = images.size();
        if size.len() != 4 || size[1..] != [3, self.side, self.side] {
            let expected = format!("[B, 3, {0}, {0}]", self.side);
            return Err(Error::Shape { what: "images".into(), expected, got: size });
        }
        let device = self.vs.device();
        let of_channels = |values: [f64; 3]| {
            Tensor::from_slice(&values).to_kind(Kind::Float).to_device(device).view([1, 3, 1, 1])
        };
        let shown = (images.to_device(device).to_kind(Kind::Float) + 1.) / 2.;
        let normed = (shown - of_channels(MEAN)) / of_channels(DEVIATION);
        tch::no_grad(|| Ok(direction(&self.vision.forward(&normed).matmul(&self.visual_projection.tr()))))
    }
}

/// Of length one.
fn direction(x: &Tensor) -> Tensor {
    x / x.linalg_norm(2., [1_i64].as_slice(), true, None)
}

/// The defaults are those of transformers' `CLIPVisionConfig`.
fn vision(fields: &Fields) -> Result<VisionSizes> {
    let sizes = VisionSizes {
        width: fields.integer("hidden_size", 768)?,
        inside: fields.integer("intermediate_size", 3072)?,
        layers: fields.integer("num_hidden_layers", 12)?,
        heads: fields.integer("num_attention_heads", 12)?,
        side: fields.integer("image_size", 224)?,
        patch: fields.integer("patch_size", 32)?,
        eps: fields.maybe_number("layer_norm_eps")?.unwrap_or(1e-5),
        activation: activation(fields)?,
    };
    sizes.check()?;
    Ok(sizes)
}
