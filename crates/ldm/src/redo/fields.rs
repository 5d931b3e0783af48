//! Fields of `parameters`, and the options of `ldm` that they become.

/// Fields that are options, with the same values.
pub(super) const SAME: [(&str, &str); 21] = [
    ("Steps", "steps"),
    ("CFG scale", "guidance-scale"),
    ("CFG rescale", "guidance-rescale"),
    ("CFG interval", "guidance-interval"),
    ("Eta", "eta"),
    ("Spacing", "spacing"),
    ("Tile", "tile"),
    ("Tile tie", "tile-tie"),
    ("Temperature", "temperature"),
    ("Noise dropout", "noise-dropout"),
    ("Clip skip", "clip-skip"),
    ("Prompt syntax", "prompt-syntax"),
    ("Init noise", "init-noise"),
    ("Variation seed strength", "variation-strength"),
    ("Classifier scale", "classifier-scale"),
    ("Hires upscale", "hires"),
    ("Hires steps", "hires-steps"),
    ("Resize", "resize"),
    ("Center crop", "center-crop"),
    ("Dtype", "dtype"),
    ("Feather", "feather"),
];
/// Fields that are flags, by their values.
pub(super) const FLAGS: [(&str, &str, &str); 5] = [
    ("Quantize denoised", "true", "quantize-denoised"),
    ("EMA", "false", "no-ema"),
    ("Watermark", "true", "watermark"),
    ("Watermark", "false", "no-watermark"),
    ("Resize mask", "true", "resize-mask"),
];
/// Fields that are followed in other ways, or have no effect.
pub(super) const OTHERS: [&str; 22] = [
    "Sampler",
    "Schedule type",
    "Seed",
    "Variation seed",
    "Size",
    "Model",
    "Lora",
    "Embeddings",
    "Classifier",
    "Denoising strength",
    "Init image",
    "Init image hash",
    "Mask",
    "Mask hash",
    "Layout",
    "Layout hash",
    "Palette",
    "Palette hash",
    "Emphasis",
    "Override",
    "Batch size",
    "Batch pos",
];
