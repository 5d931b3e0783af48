//! The `parameters` text of saved PNGs.

use std::fmt;
use std::path::Path;

use ldm_conditioning::PromptSyntax;
use ldm_core::device::dtype_name;
use ldm_pipelines::lora::LoraFile;
use ldm_pipelines::{Control, Sampling};
use ldm_schedulers::SamplerConfig;
use serde_json::Value;
use tch::Kind;

use crate::{Hires, controls};

/// The settings of an image, which [`Display`](fmt::Display) writes as the common web UIs read them.
#[derive(Debug, Clone, Copy)]
pub struct Parameters<'a> {
    /// Sampler, steps, guidance, tiles.
    pub sampling: &'a Sampling,
    /// The seed.
    pub seed: u64,
    /// Height and width, of the first pass where there are two.
    pub size: [i64; 2],
    /// The place of the image in its batch, and the number of images there: the last bits depend on it.
    pub batch: [usize; 2],
    /// The name of the model.
    pub model: &'a str,
    /// The LoRAs that were merged.
    pub loras: &'a [LoraFile],
    /// The seed and the strength of a variation.
    pub variation: Option<(u64, f64)>,
    /// The denoising strength, with an initial image.
    pub strength: Option<f64>,
    /// The second pass over the enlarged image.
    pub hires: Option<&'a Hires>,
    /// The guidance interval, where one was requested.
    pub guidance_interval: Option<[f64; 2]>,
    /// The spacing, where one was requested.
    pub spacing: Option<&'a str>,
    /// The file of the initial noise.
    pub init_noise: Option<&'a Path>,
    /// True if the prompts have brackets that are text, which web UIs would read as weights.
    pub literal_brackets: bool,
    /// The learned words that were added.
    pub embeddings: &'a [String],
    /// The ControlNets that steered the image.
    pub controls: &'a [Control<'a>],
    /// The dtype of the weights.
    pub dtype: Kind,
    /// False for the weights without EMA, where one chose them.
    pub ema: bool,
    /// The changes of the model's config.
    pub overrides: &'a [String],
}

impl Parameters<'_> {
    /// Writes the options that change the evaluations and the noise of the steps.
    fn write_steps(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Sampling { ancestral, quantize_denoised, deep_cache, token_merging, .. } = self.sampling;
        if ancestral.temperature != 1. {
            write!(f, ", Temperature: {}", ancestral.temperature)?;
        }
        if ancestral.dropout != 0. {
            write!(f, ", Noise dropout: {}", ancestral.dropout)?;
        }
        if *quantize_denoised {
            write!(f, ", Quantize denoised: true")?;
        }
        if let Some(cache) = deep_cache {
            write!(f, ", Deep cache: {cache}")?;
        }
        if *token_merging != 0. {
            write!(f, ", Token merging ratio: {token_merging}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Parameters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Sampling { sampler, steps, guidance, tile, .. } = self.sampling;
        let [height, width] = self.size;
        write!(f, "Steps: {steps}, Sampler: {}, CFG scale: {}", sampler.name(), guidance.scale)?;
        write!(f, ", Seed: {}, Size: {width}x{height}, Model: {}", self.seed, self.model)?;
        for (index, lora) in self.loras.iter().enumerate() {
            write!(f, "{}{lora}", if index == 0 { ", Lora: " } else { " " })?;
        }
        if let Some((seed, strength)) = self.variation {
            write!(f, ", Variation seed: {seed}, Variation seed strength: {strength}")?;
        }
        if let Some(strength) = self.strength {
            write!(f, ", Denoising strength: {strength}")?;
        }
        if let Some(hires) = self.hires {
            write!(f, "{hires}")?;
        }
        if guidance.rescale != 0. {
            write!(f, ", CFG rescale: {}", guidance.rescale)?;
        }
        if let Some([low, high]) = self.guidance_interval {
            write!(f, ", CFG interval: {low}..{high}")?;
        }
        let default: Option<SamplerConfig> = sampler.name().parse().ok();
        match (sampler.eta(), default.and_then(|sampler| sampler.eta())) {
            (Some(eta), default) if default != Some(eta) => write!(f, ", Eta: {eta}")?,
            _ => {}
        }
        if let Some(spacing) = self.spacing {
            write!(f, ", Spacing: {spacing}")?;
        }
        if let Some(tile) = tile {
            write!(f, ", Tile: {tile}")?;
        }
        if let Some([low, high]) = self.sampling.tile_tie {
            write!(f, ", Tile tie: {low}..{high}")?;
        }
        self.write_steps(f)?;
        if self.sampling.text.clip_skip != 1 {
            write!(f, ", Clip skip: {}", self.sampling.text.clip_skip)?;
        }
        if self.sampling.text.syntax == PromptSyntax::Weights {
            f.write_str(", Prompt syntax: weights")?;
        }
        if self.literal_brackets {
            f.write_str(", Emphasis: None")?;
        }
        for (index, embedding) in self.embeddings.iter().enumerate() {
            write!(f, "{}{embedding}", if index == 0 { ", Embeddings: " } else { " " })?;
        }
        for (index, control) in self.controls.iter().enumerate() {
            f.write_str(&controls::entry(index, control))?;
        }
        if let Some(path) = self.init_noise {
            write!(f, ", Init noise: {}", path.display())?;
        }
        let [position, images] = self.batch;
        if images > 1 {
            write!(f, ", Batch size: {images}, Batch pos: {position}")?;
        }
        write!(f, ", Version: ldm {}", env!("CARGO_PKG_VERSION"))?;
        if self.dtype != Kind::Float {
            write!(f, ", Dtype: {}", dtype_name(self.dtype))?;
        }
        if !self.ema {
            f.write_str(", EMA: false")?;
        }
        self.overrides.iter().try_for_each(|each| write!(f, ", Override: {}", Value::from(each.as_str())))
    }
}
