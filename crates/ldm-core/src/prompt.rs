//! What a sample may be conditioned on, in a person's words.

use tch::Tensor;

/// What a sample may be conditioned on. A dataset or a caller fills what it has; a conditioner reads
/// what it needs.
#[derive(Debug, Default)]
pub struct Prompt {
    /// `B` captions.
    pub text: Option<Vec<String>>,
    /// `[B]` i64, the class of each sample.
    pub class: Option<Tensor>,
    /// `[B, 3, h, w]` in `[-1, 1]`: a low-resolution or a masked image.
    pub image: Option<Tensor>,
    /// `[B, 1, H, W]` in `{0, 1}` (1 is what to fill), or a one-hot map `[B, K, H, W]`.
    pub mask: Option<Tensor>,
    /// `B` lists of boxes.
    pub layout: Option<Vec<Vec<LayoutBox>>>,
}

/// A labelled box in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutBox {
    /// Index of the category.
    pub class: i64,
    /// `[x0, y0, width, height]`, relative to the picture, in `[0, 1]`.
    pub rect: [f64; 4],
}

impl Prompt {
    /// Captions alone.
    pub fn text<S: Into<String>>(captions: impl IntoIterator<Item = S>) -> Self {
        Self { text: Some(captions.into_iter().map(Into::into).collect()), ..Self::default() }
    }

    /// Classes alone.
    pub fn class(classes: &[i64]) -> Self {
        Self { class: Some(Tensor::from_slice(classes)), ..Self::default() }
    }
}
