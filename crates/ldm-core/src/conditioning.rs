//! The conditioning of the U-Net.

use tch::Tensor;

/// The tensors the U-Net is conditioned on. The slots present correspond to CompVis' `conditioning_key`: none, `concat`,
/// `crossattn` (context), `adm` (label), `hybrid` (concat and context).
///
/// CompVis `ddpm.py:1402` `DiffusionWrapper.forward`.
#[derive(Debug, Default)]
pub struct Conditioning {
    /// `[B, C', h, w]`, concatenated to `x_t` along the channels.
    pub concat: Option<Tensor>,
    /// `[B, L, D]`, for cross-attention.
    pub context: Option<Tensor>,
    /// `[B]` i64 or `[B, D]`, added to the time embedding.
    pub label: Option<Tensor>,
}

impl Conditioning {
    /// Concatenates two conditionings along the batch axis, `self` first: guidance runs both halves in one forward, as
    /// `[uncond; cond]` (CompVis `ddim.py:178`).
    ///
    /// # Panics
    /// When they have different slots, and so are not of the same model.
    #[must_use]
    pub fn stack(&self, other: &Self) -> Self {
        Self {
            concat: stack(self.concat.as_ref(), other.concat.as_ref()),
            context: stack(self.context.as_ref(), other.context.as_ref()),
            label: stack(self.label.as_ref(), other.label.as_ref()),
        }
    }

    /// Selects `count` samples from `start`, to run a large batch in parts.
    #[must_use]
    pub fn narrow(&self, start: i64, count: i64) -> Self {
        let cut = |slot: &Option<Tensor>| slot.as_ref().map(|tensor| tensor.narrow(0, start, count));
        Self { concat: cut(&self.concat), context: cut(&self.context), label: cut(&self.label) }
    }
}

fn stack(first: Option<&Tensor>, second: Option<&Tensor>) -> Option<Tensor> {
    match (first, second) {
        (Some(first), Some(second)) => Some(Tensor::cat(&[first, second], 0)),
        (None, None) => None,
        _ => panic!("two conditionings of one model have the same slots"),
    }
}
