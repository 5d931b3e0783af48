//! What is the same for all layers.

use ldm_core::nn::NormStats;

/// What all layers share on the way of an image or latent.
#[derive(Debug)]
pub(crate) struct ForwardContext<'a> {
    /// Whether there is dropout.
    pub(crate) train: bool,
    /// Whose mean and deviation, keys and values the layers take.
    pub(crate) global: NormStats<'a>,
}

impl ForwardContext<'_> {
    /// Of a whole image or latent.
    pub(crate) fn whole(train: bool) -> Self {
        Self { train, global: NormStats::Local }
    }
}
