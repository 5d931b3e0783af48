//! The identity conditioner.

use ldm_core::{Conditioning, Error, Prompt, Result, upload};
use tch::{Device, Kind, Tensor};

use crate::Conditioner;

/// Passes on an image as concat and embeddings as context, for super-resolution and retrieval-augmented models. The
/// reference's `torch.nn.Identity`.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    device: Device,
}

impl Identity {
    /// Creates an identity with conditionings on `device`; it has no weights to decide it.
    pub fn new(device: Device) -> Self {
        Self { device }
    }

    fn read(self, name: &'static str, tensor: &Tensor, expected: &str, dims: usize) -> Result<Tensor> {
        if tensor.dim() != dims {
            return Err(Error::Shape { what: name.into(), expected: expected.into(), got: tensor.size() });
        }
        let tensor = upload(tensor, self.device);
        Ok(if tensor.is_floating_point() { tensor } else { tensor.to_kind(Kind::Float) })
    }
}

impl Conditioner for Identity {
    /// # Shapes
    /// - `prompt.image`: `[B, 3, h, w]` becomes concat; `prompt.embedding`: `[B, L, D]` becomes context; at least
    ///   one of them
    fn condition(&self, prompt: &Prompt, _train: bool) -> Result<Conditioning> {
        if prompt.image.is_none() && prompt.embedding.is_none() {
            return Err(Error::MissingInput("image` or `embedding"));
        }
        let image = prompt.image.as_ref().map(|image| self.read("image", image, "[B, C, h, w]", 4));
        let embedding =
            prompt.embedding.as_ref().map(|tokens| self.read("embedding", tokens, "[B, L, D]", 3));
        Ok(Conditioning { concat: image.transpose()?, context: embedding.transpose()?, label: None })
    }

    fn null_prompt(&self, _batch: i64) -> Result<Prompt> {
        Err(Error::invalid(
            "conditioning: expected a prompt, as the null prompt is zeros of the shape of its embedding, got none; try \
             null_like",
        ))
    }

    /// Returns embeddings of zeros, as CompVis' `scripts/knn2img.py:363`.
    fn null_like(&self, prompt: &Prompt) -> Result<Prompt> {
        match (&prompt.embedding, &prompt.image) {
            (Some(embedding), None) => {
                Ok(Prompt { embedding: Some(embedding.zeros_like()), ..Prompt::default() })
            }
            (_, Some(_)) => Err(Error::invalid(
                "conditioning: expected a null prompt for guidance or conditioning dropout, got an image, which has none",
            )),
            (None, None) => Err(Error::MissingInput("embedding")),
        }
    }
}
