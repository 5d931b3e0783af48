//! Forward-pass context.

use ldm_core::nn::NormStats;

/// Context shared by all layers in one forward pass.
#[derive(Debug)]
pub(crate) struct LayerContext<'a> {
    /// Enables dropout.
    pub(crate) train: bool,
    /// Source of norm statistics and of attention keys and values.
    pub(crate) norm_stats: NormStats<'a>,
}

impl LayerContext<'_> {
    /// Creates the context of a pass over a whole image or latent.
    pub(crate) fn whole(train: bool) -> Self {
        Self { train, norm_stats: NormStats::Local }
    }
}
