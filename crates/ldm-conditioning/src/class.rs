//! Class embedding as one token of cross-attention.

use ldm_core::nn::embedding;
use ldm_core::{Conditioning, Error, Prompt, Result, upload};
use serde::{Deserialize, Serialize};
use tch::nn::{self, Init};
use tch::{Device, Kind, Tensor};

use crate::Conditioner;
use crate::checks::at_least_one;

/// Configuration of a [`ClassEmbedder`], under CompVis' names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassConfig {
    /// `D`, channels of the token.
    pub embed_dim: i64,
    /// `K`, the number of classes, the null class among them.
    #[serde(default = "n_classes")]
    pub n_classes: i64,
    /// CompVis' key of the class in a batch. Inert: a prompt has one class.
    #[serde(default = "key")]
    pub key: String,
    /// Our extension: the null class. The default is 1000 for a model of 1001 classes, as in CompVis' `cin256-v2`, and none
    /// for any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_class: Option<i64>,
}

fn n_classes() -> i64 {
    1000
}

fn key() -> String {
    "class".into()
}

/// An embedding of each class, as one token of context.
///
/// CompVis `encoders/modules.py:21` `ClassEmbedder`.
#[derive(Debug)]
pub struct ClassEmbedder {
    embedding: nn::Embedding, // `embedding.weight` [K, D]
    n_classes: i64,
    null_class: Option<i64>,
}

impl ClassEmbedder {
    /// Builds the embedder with its table at `vs / "embedding"`, initialized from N(0, 1).
    ///
    /// # Errors
    /// If a size is not positive, or the null class is out of range.
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

    /// The null class, if any.
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
        // Reading values from a GPU synchronizes: acceptable once per sample, not in every training step.
        if class.numel() == 0 || (train && class.device() != Device::Cpu) {
            return Ok(());
        }
        let (low, high) = (class.min().int64_value(&[]), class.max().int64_value(&[]));
        let wrong = if low < 0 { low } else { high };
        if (0..self.n_classes).contains(&wrong) {
            return Ok(());
        }
        let last = self.n_classes - 1;
        Err(Error::invalid(format!("class: expected 0 to {last}, got {wrong}")))
    }
}

impl Conditioner for ClassEmbedder {
    /// # Shapes
    /// - `prompt.class`: `[B]` integers in `0..K`
    /// - returns context `[B, 1, D]`
    fn condition(&self, prompt: &Prompt, train: bool) -> Result<Conditioning> {
        let class = prompt.class.as_ref().ok_or(Error::MissingInput("class"))?;
        self.check(class, train)?;
        let class = upload(&class.to_kind(Kind::Int64), self.embedding.ws.device());
        let context = class.unsqueeze(1).apply(&self.embedding); // [B, 1, D]
        Ok(Conditioning { context: Some(context), ..Conditioning::default() })
    }

    fn null_prompt(&self, batch: i64) -> Result<Prompt> {
        let Some(class) = self.null_class else {
            return Err(Error::invalid(
                "null_class: expected a null class for guidance or conditioning dropout, got none; try setting it in the \
                 parameters of the class embedder",
            ));
        };
        let class = Tensor::full([batch], class, (Kind::Int64, self.embedding.ws.device()));
        Ok(Prompt { class: Some(class), ..Prompt::default() })
    }
}
