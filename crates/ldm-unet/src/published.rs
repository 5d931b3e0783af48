//! Published U-Nets, identified by their shapes, for the values that shapes do not show.

use crate::config::UNetConfig;

/// Attention heads, which no shape shows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heads {
    /// Number of heads at every level.
    Count(i64),
    /// Channels per head.
    Width(i64),
}

/// A published U-Net.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    model_channels: i64,
    channel_mult: &'static [i64],
    /// Downsampling factors of the levels with attention.
    attends: &'static [i64],
    /// Channels of the context, and blocks per transformer.
    context: Option<(i64, i64)>,
    /// `use_scale_shift_norm` and `resblock_updown`.
    scale_shift_updown: [bool; 2],
    pub(crate) heads: Heads,
    /// Side of the training latents, if there is only one.
    pub(crate) side: Option<i64>,
}

/// All have two residual blocks per level. CompVis `models/ldm/*/config.yaml`, `configs/latent-diffusion/*.yaml`,
/// `configs/retrieval-augmented-diffusion/768x768.yaml`, `configs/stable-diffusion/v1-inference.yaml`.
const PUBLISHED: [Published; 12] = [
    // CelebA-HQ, FFHQ, LSUN bedrooms
    plain(224, &[1, 2, 3, 4], &[2, 4, 8], Heads::Width(32), Some(64)),
    // LSUN churches
    Published {
        scale_shift_updown: [true, true],
        ..plain(192, &[1, 2, 2, 4, 4], &[1, 2, 4, 8], Heads::Count(8), Some(32))
    },
    // super-resolution
    plain(160, &[1, 2, 2, 4], &[8], Heads::Width(32), Some(64)),
    // semantic synthesis, of latents of 64 and of 128
    plain(128, &[1, 4, 8], &[], Heads::Count(8), None),
    // inpainting
    Published {
        scale_shift_updown: [false, true],
        ..plain(256, &[1, 2, 3, 4], &[2, 4, 8], Heads::Count(8), Some(64))
    },
    // ImageNet classes, f = 8 and f = 4
    with_context(256, &[1, 2, 4], &[1, 2, 4], (512, 1), Heads::Width(32), 32),
    with_context(192, &[1, 2, 3, 5], &[2, 4, 8], (512, 1), Heads::Count(1), 64),
    // text, of 1.45 G parameters and on Conceptual Captions
    with_context(320, &[1, 2, 4, 4], &[1, 2, 4], (1280, 1), Heads::Count(8), 32),
    with_context(192, &[1, 2, 3, 5], &[2, 4, 8], (640, 1), Heads::Width(32), 64),
    // layouts
    with_context(128, &[1, 2, 3, 4], &[2, 4, 8], (512, 3), Heads::Width(32), 64),
    // retrieval-augmented
    with_context(448, &[1, 2, 3, 4], &[1, 2, 4], (768, 1), Heads::Width(32), 48),
    // Stable Diffusion v1; its file has 32, marked as unused
    with_context(320, &[1, 2, 4, 4], &[1, 2, 4], (768, 1), Heads::Count(8), 64),
];

const fn plain(
    model_channels: i64,
    channel_mult: &'static [i64],
    attends: &'static [i64],
    heads: Heads,
    side: Option<i64>,
) -> Published {
    let (context, scale_shift_updown) = (None, [false, false]);
    Published { model_channels, channel_mult, attends, context, scale_shift_updown, heads, side }
}

const fn with_context(
    model_channels: i64,
    channel_mult: &'static [i64],
    attends: &'static [i64],
    context: (i64, i64),
    heads: Heads,
    side: i64,
) -> Published {
    Published { context: Some(context), ..plain(model_channels, channel_mult, attends, heads, Some(side)) }
}

/// Finds the published network that equals `config` in all that shapes show, except input, output and classes.
pub(crate) fn find(config: &UNetConfig) -> Option<Published> {
    let context = config.context_dim.map(|width| (width, config.transformer_depth));
    PUBLISHED.into_iter().find(|each| {
        config.num_res_blocks == 2
            && config.model_channels == each.model_channels
            && config.channel_mult == each.channel_mult
            && config.attention_resolutions == each.attends
            && context == each.context
            && [config.use_scale_shift_norm, config.resblock_updown] == each.scale_shift_updown
    })
}
