//! What is the same for all layers.

use ldm_core::nn::Global;

/// What all layers share on the way of a picture or latent.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    /// Whether there is dropout.
    pub(crate) train: bool,
    /// Whose mean and deviation, keys and values the layers take.
    pub(crate) global: Global<'a>,
}

impl Pass<'_> {
    /// Of a whole picture or latent.
    pub(crate) fn whole(train: bool) -> Self {
        Self { train, global: Global::Own }
    }
}
