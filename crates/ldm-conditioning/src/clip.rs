//! CLIP: similarity of texts and images.

pub(crate) mod layer;
pub(crate) mod openai;
pub(crate) mod openai_config;
pub(crate) mod pooled;
pub(crate) mod safety;
pub(crate) mod text;
pub(crate) mod text_config;
pub(crate) mod vision;

use std::path::{Path, PathBuf};

use ldm_checkpoint::Checkpoint;
use ldm_core::diffusers::{Fields, wrong};
use ldm_core::nn::skip_init;
use ldm_core::{Error, Prompt, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

use crate::clip::vision::{ClipVision, VisionSizes};
use crate::diffusers::{activation, clip_text};
use crate::{ClipTextEmbedder, Conditioner, Tokenizer, TokenizerKind};

/// Mean and deviation of the training images of CLIP, in `[0, 1]` (openai/CLIP `clip.py:85`).
const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const DEVIATION: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];
/// A folder with a tokenizer has one of these files.
const TOKENIZERS: [&str; 3] = ["tokenizer.json", "vocab.json", "bpe_simple_vocab_16e6.txt.gz"];
/// File names of the weights.
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// CLIP (Radford et al. 2021): embeds texts and images in one space, close if they match. In f32; no parameter takes a
/// gradient. transformers `CLIPModel`.
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
    /// Loads a folder of transformers: `config.json`, `model.safetensors` or `pytorch_model.bin`, and a tokenizer, without
    /// which it takes only tokens.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] and [`Error::Invalid`] if a file is missing, damaged, or of another model;
    /// [`Error::Weights`] with every mismatch.
    pub fn open(folder: impl AsRef<Path>, device: Device) -> Result<Self> {
        let folder = folder.as_ref();
        let (path, json) = read_config(folder)?;
        let has_tokenizer = TOKENIZERS.iter().any(|name| folder.join(name).is_file());
        let tokenizer = has_tokenizer.then(|| Tokenizer::open(TokenizerKind::Clip, folder)).transpose()?;
        let clip = skip_init(|| Self::new(&json, tokenizer, device))
            .map_err(|error| Error::format(&path, error.to_string()))?;
        let buffers =
            ["logit_scale", "text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"];
        Checkpoint::open(weights_in(folder))?.without(&buffers).load_scope(&clip.vs, "")?;
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

    /// Side of the input images, in pixels.
    pub fn side(&self) -> i64 {
        self.side
    }

    /// Components of an embedding, `P`.
    pub fn width(&self) -> i64 {
        self.text_projection.size()[0]
    }

    /// SHA-256 of the two projections: 64 hex digits that identify the model's embeddings.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for projection in [&self.text_projection, &self.visual_projection] {
            let flat = projection.to_device(Device::Cpu).contiguous().flatten(0, -1);
            hash.update(Vec::<u8>::try_from(flat.view_dtype(Kind::Uint8)).expect("bytes on the CPU"));
        }
        format!("{:x}", hash.finalize())
    }

    /// Returns the truncated part of each text.
    pub fn cut(&self, prompt: &Prompt) -> Vec<Option<String>> {
        self.text.cut(prompt)
    }

    /// Embeds texts, or tokens whose end mark is the greatest.
    ///
    /// # Shapes
    /// - returns `[B, P]` f32, of unit length
    ///
    /// # Errors
    /// As [`Conditioner::condition`](crate::Conditioner::condition) of [`ClipTextEmbedder`].
    pub fn texts(&self, prompt: &Prompt) -> Result<Tensor> {
        tch::no_grad(|| Ok(normalize(&self.text.pooled(prompt)?.matmul(&self.text_projection.tr()))))
    }

    /// Embeds images.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, S, S]` in `[-1, 1]`, `S` as [`Clip::side`]
    /// - returns `[B, P]` f32, of unit length
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape.
    pub fn images(&self, images: &Tensor) -> Result<Tensor> {
        let normed = prepare(images, self.side, self.vs.device())?;
        tch::no_grad(|| Ok(normalize(&self.vision.forward(&normed).matmul(&self.visual_projection.tr()))))
    }
}

/// Normalizes images `[B, 3, S, S]` in `[-1, 1]` as CLIP's training images.
fn prepare(images: &Tensor, side: i64, device: Device) -> Result<Tensor> {
    let size = images.size();
    if size.len() != 4 || size[1..] != [3, side, side] {
        let expected = format!("[B, 3, {side}, {side}]");
        return Err(Error::Shape { what: "images".into(), expected, got: size });
    }
    let per_channel = |values: [f64; 3]| {
        Tensor::from_slice(&values).to_kind(Kind::Float).to_device(device).view([1, 3, 1, 1])
    };
    let unit = (images.to_device(device).to_kind(Kind::Float) + 1.) / 2.;
    Ok((unit - per_channel(MEAN)) / per_channel(DEVIATION))
}

/// Reads `config.json` in a folder; returns its path too.
fn read_config(folder: &Path) -> Result<(PathBuf, Value)> {
    let path = folder.join("config.json");
    let text = ldm_core::text::read(&path)?;
    let json = serde_json::from_str(&text)
        .map_err(|error| Error::format(&path, format!("expected JSON: {error}")))?;
    Ok((path, json))
}

/// The file of weights in a folder of transformers.
fn weights_in(folder: &Path) -> PathBuf {
    let file = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    file.unwrap_or_else(|| folder.join(WEIGHTS[0]))
}

/// Scales vectors to unit length.
fn normalize(x: &Tensor) -> Tensor {
    x / x.linalg_norm(2., [1_i64].as_slice(), true, None)
}

/// Reads a vision config, with the defaults of transformers' `CLIPVisionConfig`.
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
