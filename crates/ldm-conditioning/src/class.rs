//! A class as one token for cross-attention.

use ldm_core::nn::embedding;
use ldm_core::{Conditioning, Error, Prompt, Result};
use serde::{Deserialize, Serialize};
use tch::nn::{self, Init};
use tch::{Device, Kind, Tensor};

use crate::Conditioner;
use crate::sizes::at_least_one;

/// A class embedder, under the reference's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassConfig {
    /// `D`, the width of the token.
    pub embed_dim: i64,
    /// `K`, the number of classes, the null class among them.
    #[serde(default = "n_classes")]
    pub n_classes: i64,
    /// The reference's name of the class in its batches. Read, and not needed: a prompt has one class.
    #[serde(default = "key")]
    pub key: String,
    /// Ours: the class that means no class. Without it a model of 1001 classes takes 1000, as the reference's
    /// `cin256-v2`, and any other has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_class: Option<i64>,
}

fn n_classes() -> i64 {
    1000
}

fn key() -> String {
    "class".into()
}

/// A table with a vector for each class; the conditioning is that vector, as one token of context.
///
/// CompVis `encoders/modules.py:21` `ClassEmbedder`.
#[derive(Debug)]
pub struct ClassEmbedder {
    embedding: nn::Embedding, // `embedding.weight` [K, D]
    n_classes: i64,
    null_class: Option<i64>,
}

impl ClassEmbedder {
    /// The embedder with its table at `vs / "embedding"`, N(0, 1) at first.
    ///
    /// # Errors
    /// When a size is not positive, or the null class is not one of the classes.
    pub fn new(vs: &nn::Path, config: &ClassConfig) -> Result<Self> {
        let ClassConfig { embed_dim, n_classes, .. } = *config;
        at_least_one("class conditioning", &[("embed_dim", embed_dim), ("n_classes", n_classes)])?;
        let null_class = config.null_class.or_else(|| (n_classes == 1001).then_some(1000));
        if let Some(class) = null_class.filter(|class| !(0..n_classes).contains(class)) {
            let last = n_classes - 1;
            return Err(Error::invalid(format!("null_class: expected one of 0 to {last}, got {class}")));
        }
        let init = Init::Randn { mean: 0., stdev: 1. }; // torch.nn.Embedding's own
        let embedding = embedding(&(vs / "embedding"), n_classes, embed_dim, init);
        Ok(Self { embedding, n_classes, null_class })
    }

    /// `K`, the number of classes, the null class among them.
    pub fn n_classes(&self) -> i64 {
        self.n_classes
    }

    /// The class that means no class, where there is one.
    pub fn null_class(&self) -> Option<i64> {
        self.null_class
    }

    fn check(&self, class: &Tensor, train: bool) -> Result<()> {
        let integer =
            matches!(class.kind(), Kind::Int64 | Kind::Int | Kind::Int16 | Kind::Int8 | Kind::Uint8);
        if !integer {
            let got = class.kind();
            return Err(Error::invalid(format!("class: expected a list of integers, got {got:?}")));
        }
        if class.dim() != 1 {
            return Err(Error::Shape { what: "class".into(), expected: "[B]".into(), got: class.size() });
        }
        // Reading values from a GPU waits for it: once for a sample is nothing, in every training step it is not.
        if class.numel() == 0 || (train && class.device() != Device::Cpu) {
            return Ok(());
        }
        let (low, high) = (class.min().int64_value(&[]), class.max().int64_value(&[]));
        let wrong = if low < 0 { low } else { high };
        if (0..self.n_classes).contains(&wrong) {
            return Ok(());
        }
        let last = self.n_classes - 1;
        Err(Error::invalid(format!("class: this model knows the classes 0 to {last}, got {wrong}")))
    }
}

impl Conditioner for ClassEmbedder {
    /// # Shapes
    /// - `prompt.class`: `[B]` integers in `0..K`
    /// - returns context `[B, 1, D]`
    fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning> {
        let class = prompt.class.as_ref().ok_or(Error::MissingInput("class"))?;
        self.check(class, train)?;
        let class = class.to_kind(Kind::Int64).to_device(self.embedding.ws.device());
        let context = class.unsqueeze(1).apply(&self.embedding); // [B, 1, D]
        Ok(Conditioning { context: Some(context), ..Conditioning::default() })
    }

    fn null_prompt(&self, batch: i64) -> Result<Prompt> {
        let Some(class) = self.null_class else {
            return Err(Error::invalid(
                "this model has no class that means no class, which guidance and conditioning dropout need: \
                 set null_class in the parameters of the class embedder",
            ));
        };
        let class = Tensor::full([batch], class, (Kind::Int64, self.embedding.ws.device()));
        Ok(Prompt { class: Some(class), ..Prompt::default() })
    }
}
