//! The inputs of a generation.

use tch::Tensor;

/// The inputs that samples may be conditioned on. A dataset or caller provides what it has; a conditioner reads what it
/// needs.
#[derive(Debug, Default)]
pub struct Prompt {
    /// `B` captions.
    pub text: Option<Vec<String>>,
    /// `[B]` i64, the class of each sample.
    pub class: Option<Tensor>,
    /// `[B, 3, h, w]` in `[-1, 1]`: a low-resolution or a masked image.
    pub image: Option<Tensor>,
    /// `[B, 1, H, W]` in `{0, 1}` (1 is the region to fill), or a one-hot map `[B, K, H, W]`.
    pub mask: Option<Tensor>,
    /// `B` lists of boxes.
    pub layout: Option<Vec<Vec<LayoutBox>>>,
    /// `B` crops `[x0, y0, width, height]` relative to the full image, in `[0, 1]`: the visible part. The boxes of `layout`
    /// are relative to the full image; without crops all of it is visible.
    pub crops: Option<Vec<[f64; 4]>>,
    /// `[B, L]` i64, token IDs: layouts, or texts tokenized before.
    pub tokens: Option<Tensor>,
    /// `[B, L, D]`, vectors used directly as context, such as retrieved neighbors.
    pub embedding: Option<Tensor>,
}

/// A labeled box in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutBox {
    /// Index of the category.
    pub class: i64,
    /// `[x0, y0, width, height]`, relative to the image, in `[0, 1]`.
    pub rect: [f64; 4],
}

impl Prompt {
    /// Creates a prompt of captions.
    pub fn text<S: Into<String>>(captions: impl IntoIterator<Item = S>) -> Self {
        Self { text: Some(captions.into_iter().map(Into::into).collect()), ..Self::default() }
    }

    /// Creates a prompt of classes.
    pub fn class(classes: &[i64]) -> Self {
        Self { class: Some(Tensor::from_slice(classes)), ..Self::default() }
    }

    /// Selects `count` samples from `start`; tensors share memory.
    #[must_use]
    pub fn narrow(&self, start: i64, count: i64) -> Self {
        let cut = |slot: &Option<Tensor>| slot.as_ref().map(|tensor| tensor.narrow(0, start, count));
        let range = start as usize..(start + count) as usize;
        Self {
            text: self.text.as_ref().map(|texts| texts[range.clone()].to_vec()),
            class: cut(&self.class),
            image: cut(&self.image),
            mask: cut(&self.mask),
            layout: self.layout.as_ref().map(|layouts| layouts[range.clone()].to_vec()),
            crops: self.crops.as_ref().map(|crops| crops[range].to_vec()),
            tokens: cut(&self.tokens),
            embedding: cut(&self.embedding),
        }
    }

    /// Replaces every tensor.
    #[must_use]
    pub fn map(self, change: impl Fn(Tensor) -> Tensor) -> Self {
        let [class, image, mask, tokens, embedding] =
            [self.class, self.image, self.mask, self.tokens, self.embedding].map(|slot| slot.map(&change));
        Self { class, image, mask, tokens, embedding, ..self }
    }

    /// The batch size `B`, from the first slot present; `None` if all are empty.
    pub fn batch(&self) -> Option<i64> {
        let tensors = [&self.class, &self.image, &self.mask, &self.tokens, &self.embedding];
        let by_list = self.text.as_ref().map(Vec::len).or_else(|| self.layout.as_ref().map(Vec::len));
        by_list
            .map(|count| count as i64)
            .or_else(|| tensors.into_iter().flatten().find_map(|tensor| tensor.size().first().copied()))
    }
}
