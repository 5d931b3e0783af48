//! Stable Diffusion's safety checker.

use std::path::Path;

use ldm_checkpoint::{Checkpoint, KeyMap};
use ldm_core::diffusers::{Fields, wrong};
use ldm_core::nn::skip_init;
use ldm_core::{Error, Result};
use serde_json::Value;
use tch::nn::{Init, VarStore};
use tch::{Device, Tensor};

use super::{normalize, prepare, read_config, vision, weights_in};
use crate::clip::vision::ClipVision;

/// The allowance of all other concepts in an image that shows a special one.
const ALLOWANCE: f64 = 0.01;
/// The names of the concepts' tensors in files.
const CONCEPTS: [&str; 2] = ["special_care_embeds", "concept_embeds"];

/// The safety checker of Stable Diffusion: compares CLIP's embedding of an image with those of concepts, each with
/// its threshold. In f32; no parameter takes a gradient. diffusers `safety_checker.py`
/// `StableDiffusionSafetyChecker`, which CompVis' `scripts/txt2img.py` uses too.
#[derive(Debug)]
pub struct SafetyChecker {
    vs: VarStore,
    vision: ClipVision,
    visual_projection: Tensor, // [P, D]
    special: Concepts,
    concepts: Concepts,
    side: i64,
}

/// Embeddings of concepts, `[K, P]`, and their thresholds, `[K]`.
#[derive(Debug)]
struct Concepts {
    embeddings: Tensor,
    thresholds: Tensor,
}

/// The scores of an image: similarity to each concept above its threshold, to three decimals.
#[derive(Debug, Clone, PartialEq)]
pub struct SafetyScores {
    /// Of the special concepts, any of which lowers the other thresholds by 0.01.
    pub special: Vec<f64>,
    /// Of the concepts that make an image unsafe.
    pub concepts: Vec<f64>,
}

impl SafetyScores {
    /// Returns true if a concept is above its threshold.
    pub fn is_unsafe(&self) -> bool {
        self.concepts.iter().any(|score| *score > 0.)
    }
}

impl SafetyChecker {
    /// Loads a folder `safety_checker` of diffusers: `config.json`, and `model.safetensors` or `pytorch_model.bin`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] and [`Error::Invalid`] if a file is missing, damaged, or of another model;
    /// [`Error::Weights`] with every mismatch.
    pub fn open(folder: impl AsRef<Path>, device: Device) -> Result<Self> {
        let folder = folder.as_ref();
        let (path, json) = read_config(folder)?;
        let buffers = ["vision_model.embeddings.position_ids"];
        // transformers 5 has one level less.
        let nested =
            KeyMap::new(vec![("vision_model.vision_model".into(), "vision_model".into())], Vec::new());
        let checkpoint = Checkpoint::open(weights_in(folder))?.rename(&nested).without(&buffers);
        let count =
            |name: &str| checkpoint.info(name).and_then(|info| info.shape.first().copied()).unwrap_or(1);
        let counts = CONCEPTS.map(count);
        let checker = skip_init(|| Self::new(&json, counts, device))
            .map_err(|error| Error::format(&path, error.to_string()))?;
        checkpoint.load_scope(&checker.vs, "")?;
        Ok(checker)
    }

    fn new(json: &Value, counts: [i64; 2], device: Device) -> Result<Self> {
        let fields = Fields::new(json)?;
        let config = fields.get("vision_config").ok_or_else(|| wrong("vision_config", "an object", None))?;
        let sizes = vision(&Fields::new(config)?)?;
        let width = fields.integer("projection_dim", 512)?;
        let mut vs = VarStore::new(device);
        let root = vs.root();
        let concepts = |name: &str, count| Concepts {
            embeddings: root.var(name, &[count, width], Init::Const(0.)),
            thresholds: root.var(&format!("{name}_weights"), &[count], Init::Const(0.)),
        };
        let [special, concepts] = [concepts(CONCEPTS[0], counts[0]), concepts(CONCEPTS[1], counts[1])];
        let vision = ClipVision::new(&(&root / "vision_model"), sizes);
        let visual_projection =
            (&root / "visual_projection").var("weight", &[width, sizes.width], Init::Const(0.));
        vs.freeze();
        Ok(Self { vs, vision, visual_projection, special, concepts, side: sizes.side })
    }

    /// Side of the input images, in pixels.
    pub fn side(&self) -> i64 {
        self.side
    }

    /// Scores images.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, S, S]` in `[-1, 1]`, `S` as [`SafetyChecker::side`]
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape.
    pub fn scores(&self, images: &Tensor) -> Result<Vec<SafetyScores>> {
        let x = prepare(images, self.side, self.vs.device())?;
        let embeddings =
            tch::no_grad(|| normalize(&self.vision.forward(&x).matmul(&self.visual_projection.tr())));
        let (special, concepts) = (self.special.above(&embeddings), self.concepts.above(&embeddings));
        let of_image = |index: i64| {
            let row = |of: &Tensor| Vec::<f64>::try_from(of.get(index).to_kind(tch::Kind::Double));
            Ok(scores(&row(&special)?, &row(&concepts)?))
        };
        (0..x.size()[0]).map(of_image).collect()
    }
}

impl Concepts {
    /// Cosine similarity minus the threshold, `[B, K]` on the CPU.
    fn above(&self, images: &Tensor) -> Tensor {
        let similarity = images.matmul(&normalize(&self.embeddings).tr());
        (similarity - &self.thresholds).to_device(Device::Cpu)
    }
}

/// Adds the allowance after the first special concept that is above its threshold.
fn scores(special: &[f64], concepts: &[f64]) -> SafetyScores {
    let rounded = |score: f64| (score * 1000.).round() / 1000.;
    let mut allowance = 0.;
    let mut of_special = Vec::with_capacity(special.len());
    for score in special {
        let score = rounded(score + allowance);
        if score > 0. {
            allowance = ALLOWANCE;
        }
        of_special.push(score);
    }
    let concepts = concepts.iter().map(|score| rounded(score + allowance)).collect();
    SafetyScores { special: of_special, concepts }
}
