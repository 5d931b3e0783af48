//! What the U-Net is conditioned on.

use tch::Tensor;

/// What the U-Net is conditioned on. Which slots are filled *is* CompVis' `conditioning_key`: none,
/// `concat`, `crossattn` (context), `adm` (label), `hybrid` (concat and context).
///
/// CompVis `ddpm.py:1402` `DiffusionWrapper.forward`.
#[derive(Debug, Default)]
pub struct Conditioning {
    /// `[B, C', h, w]`, joined to `x_t` on the channels.
    pub concat: Option<Tensor>,
    /// `[B, L, D]`, attended to by cross-attention.
    pub context: Option<Tensor>,
    /// `[B]` i64 or `[B, D]`, added to the time embedding.
    pub label: Option<Tensor>,
}

impl Conditioning {
    /// Both conditionings on the batch axis, `self` first: guidance runs both halves in one forward,
    /// as `[uncond; cond]` (CompVis `ddim.py:178`).
    ///
    /// # Panics
    /// When one fills a slot the other leaves empty: that is not two conditionings of one model.
    #[must_use]
    pub fn stack(&self, other: &Self) -> Self {
        Self {
            concat: stack(self.concat.as_ref(), other.concat.as_ref()),
            context: stack(self.context.as_ref(), other.context.as_ref()),
            label: stack(self.label.as_ref(), other.label.as_ref()),
        }
    }

    /// `count` samples of the batch from `start`, for callers that run a large batch in pieces.
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
        _ => panic!("two conditionings of one model fill the same slots"),
    }
}
