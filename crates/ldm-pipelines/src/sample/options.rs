//! Sampling options, with defaults from the model.

use std::str::FromStr;

use ldm_conditioning::{PromptSyntax, TextOptions, TokenizerKind, has_syntax, has_weights};
use ldm_core::{Error, Prompt, Result};
use ldm_schedulers::{AncestralNoise, SamplerConfig, Spacing};

use super::deep_cache::DeepCache;
use super::generate::Sampling;
use super::guidance::Guidance;
use super::quantized_denoiser::QuantizedDenoiser;
use crate::{ConditioningKind, DiffusersScheduler, LatentDiffusion, Thresholding};

/// The side of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileSize {
    /// The size of the images the model was trained on.
    Auto,
    /// In pixels.
    Pixels(i64),
}

/// The longest side of a tile.
const LARGEST_TILE: i64 = 65_536;

impl FromStr for TileSize {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.parse() {
            Ok(side) if (1..=LARGEST_TILE).contains(&side) => Ok(Self::Pixels(side)),
            _ if text == "auto" => Ok(Self::Auto),
            _ => Err(format!("expected 1 to {LARGEST_TILE} pixels, or auto")),
        }
    }
}

/// Options of sampling, each with the model's default where absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingOptions {
    /// The solver; that of a diffusers folder, else DDIM.
    pub sampler: Option<SamplerConfig>,
    /// η of the solver.
    pub eta: Option<f64>,
    /// The noise levels; those of a diffusers folder, else the solver's own.
    pub spacing: Option<Spacing>,
    /// The number of steps; the length of a list of levels, else the solver's own.
    pub steps: Option<usize>,
    /// The guidance scale; [`LatentDiffusion::default_guidance_scale`] where absent.
    pub guidance_scale: Option<f64>,
    /// [`Guidance::rescale`].
    pub guidance_rescale: f64,
    /// [`Guidance::interval`]; every level where absent.
    pub guidance_interval: Option<[f64; 2]>,
    /// Height and width in pixels.
    pub size: Option<[i64; 2]>,
    /// Sampling and decoding in tiles.
    pub tile: Option<TileSize>,
    /// [`Sampling::tile_tie`].
    pub tile_tie: Option<[f64; 2]>,
    /// [`AncestralNoise::temperature`]; 1 where absent.
    pub temperature: Option<f64>,
    /// [`AncestralNoise::dropout`].
    pub noise_dropout: f64,
    /// [`Sampling::quantize_denoised`].
    pub quantize_denoised: bool,
    /// [`Sampling::deep_cache`].
    pub deep_cache: Option<DeepCache>,
    /// [`Sampling::token_merging`].
    pub token_merging: f64,
    /// Syntax of texts, and CLIP skip.
    pub text: TextOptions,
}

impl SamplingOptions {
    /// The same options with defaults for speed: DPM-Solver++ 2M in 20 steps, and [`DeepCache`] every second evaluation.
    /// The sampler of a diffusers folder is not followed.
    #[must_use]
    pub fn fast(self) -> Self {
        Self {
            sampler: self.sampler.or(Some(SamplerConfig::Dpmpp2m { lower_order_final: false })),
            steps: self.steps.or(self.spacing.as_ref().and_then(Spacing::steps)).or(Some(20)),
            deep_cache: self.deep_cache.or(Some(DeepCache::FAST)),
            ..self
        }
    }

    /// The sampling of `model` with these options. `note` is given the fields of a diffusers `scheduler_config.json`
    /// that are not followed, where its sampler is used.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the sampler has no η, or when guidance that is off is to be rescaled or limited.
    pub fn resolve(&self, model: &LatentDiffusion, note: &mut dyn FnMut(&str)) -> Result<Sampling> {
        let scheduler = model.scheduler.as_ref();
        let (mut sampler, own_spacing) = match (self.sampler, scheduler.map(DiffusersScheduler::sampler)) {
            (Some(sampler), _) => (sampler, None),
            (None, None) => (SamplerConfig::Ddim { eta: 0. }, None),
            (None, Some((sampler, spacing, departs))) => {
                if let Some(text) = departs {
                    note(&format!("scheduler_config.json: {text}"));
                }
                (sampler, Some(spacing))
            }
        };
        if let Some(eta) = self.eta {
            sampler = sampler.with_eta(eta)?;
        }
        let spacing = self.spacing.clone().or(own_spacing).unwrap_or_else(|| sampler.spacing());
        let steps = self.steps.or(spacing.steps()).unwrap_or_else(|| sampler.steps(&model.schedule));
        let scale = self.guidance_scale.unwrap_or_else(|| model.default_guidance_scale());
        let shaped = self.guidance_rescale != 0. || self.guidance_interval.is_some();
        if shaped && (scale == 1. || model.config.conditioning_key().is_none()) {
            return Err(Error::invalid(
                "guidance rescale and interval: expected a guidance scale other than 1 on a conditional model",
            ));
        }
        let ancestral =
            AncestralNoise { temperature: self.temperature.unwrap_or(1.), dropout: self.noise_dropout };
        ancestral.check()?;
        if ancestral != AncestralNoise::default() && !sampler.adds_noise() {
            return Err(Error::invalid(format!(
                "temperature and noise dropout: expected a sampler that adds noise, got {}; try --eta 1",
                sampler.name()
            )));
        }
        if self.quantize_denoised {
            QuantizedDenoiser::check(model)?;
        }
        let trained = model.config.image_size * model.first_stage.factor();
        Ok(Sampling {
            sampler,
            spacing,
            steps,
            guidance: Guidance {
                scale,
                rescale: self.guidance_rescale,
                interval: self.guidance_interval.unwrap_or([0., f64::INFINITY]),
            },
            size: self.size,
            tile: self.tile.map(|side| match side {
                TileSize::Auto => trained,
                TileSize::Pixels(side) => side,
            }),
            tile_tie: self.tile_tie,
            thresholding: model.thresholding(),
            ancestral,
            quantize_denoised: self.quantize_denoised,
            deep_cache: self.deep_cache,
            token_merging: self.token_merging,
            text: self.text,
        })
    }
}

impl LatentDiffusion {
    /// Warnings about `texts` that are not read as they were meant, it seems: truncated ones, and weights in plain
    /// syntax; `name` names the text in them.
    pub fn text_warnings(&self, name: &str, texts: &[String], options: &TextOptions) -> Vec<String> {
        if options.syntax != PromptSyntax::Plain {
            return Vec::new();
        }
        let mut warnings = self.truncation_warnings(name, texts);
        let through_clip = self.config.cond_stage_config.tokenizer_kind() == Some(TokenizerKind::Clip);
        if through_clip && texts.iter().any(|text| has_weights(text)) {
            warnings.push(format!(
                "the weights and breaks in {name} were read as text; try --prompt-syntax weights"
            ));
        }
        warnings
    }

    /// Returns true if the brackets in `texts` are text, although web UIs would read them as weights.
    pub fn reads_brackets_as_text(&self, texts: &str, options: &TextOptions) -> bool {
        let through_clip = self.config.cond_stage_config.tokenizer_kind() == Some(TokenizerKind::Clip);
        through_clip && options.syntax == PromptSyntax::Plain && has_syntax(texts)
    }

    fn truncation_warnings(&self, name: &str, texts: &[String]) -> Vec<String> {
        let cuts = self.conditioner.cut(&Prompt::text(texts.iter().cloned()));
        let warning = |cut| format!("{name} was truncated to the model's maximum length; ignored: {cut}");
        cuts.into_iter().flatten().map(warning).collect()
    }

    /// The thresholding of predicted clean samples: that of a diffusers folder, or with `clip_denoised` the clamp of pixels
    /// to `[-1, 1]` (CompVis `ddpm.py:237`), for every sampler.
    pub fn thresholding(&self) -> Option<Thresholding> {
        let clips = self.config.clip_denoised == Some(true);
        let own = self.scheduler.as_ref().and_then(|scheduler| scheduler.thresholding);
        own.or(clips.then_some(Thresholding::Static { range: 1. }))
    }

    /// The model's own sampling: sampler and spacing of a diffusers folder, else DDIM; the sampler's default number of
    /// steps; [`default_guidance_scale`](Self::default_guidance_scale).
    pub fn default_sampling(&self) -> Sampling {
        SamplingOptions::default().resolve(self, &mut |_| {}).expect("defaults fit each other")
    }

    /// The guidance scale of CompVis' scripts: 7.5 for text read by CLIP, 5 for other text and for embeddings
    /// (`scripts/knn2img.py:248`), else 1.
    pub fn default_guidance_scale(&self) -> f64 {
        match ConditioningKind::of(&self.config) {
            ConditioningKind::Text | ConditioningKind::TextInpainting if self.config.clip() => 7.5,
            ConditioningKind::Text | ConditioningKind::TextInpainting | ConditioningKind::Embedding => 5.,
            _ => 1.,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tile_sizes() {
        assert_eq!(["auto", "64"].map(str::parse), [Ok(TileSize::Auto), Ok(TileSize::Pixels(64))]);
        for wrong in ["", "0", "-8", "64px", "65537", "9223372036854775807"] {
            assert!(wrong.parse::<TileSize>().is_err(), "{wrong}");
        }
    }
}
