//! Requests for images.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use ldm_conditioning::PromptSyntax;
use ldm_core::{Error, LayoutBox, Prompt, Result};
use ldm_pipelines::{Control, GuidingClassifier, SamplingOptions, TileSize, Variation};
use ldm_schedulers::{SamplerConfig, SamplingStep, Spacing};
use tch::Tensor;

use crate::{Hires, Watermark};

/// A request for images: the condition, the seeds, and whatever is not to be the model's default.
pub struct Request<'a> {
    /// One for all images, or one for each.
    pub(crate) texts: Option<Vec<String>>,
    /// As `texts`; empty is none.
    pub(crate) negatives: Vec<String>,
    pub(crate) class: Option<i64>,
    pub(crate) layout: Option<Vec<LayoutBox>>,
    pub(crate) image: Option<Tensor>,
    pub(crate) mask: Option<Tensor>,
    pub(crate) strength: Option<f64>,
    pub(crate) feather: u32,
    pub(crate) variation: Option<Variation>,
    pub(crate) hires: Option<Hires>,
    pub(crate) seeds: Vec<u64>,
    pub(crate) batch_size: usize,
    pub(crate) options: SamplingOptions,
    pub(crate) classifier: Option<&'a GuidingClassifier>,
    pub(crate) controls: Vec<Control<'a>>,
    pub(crate) watermark: Option<Watermark>,
    pub(crate) alone: bool,
    pub(crate) stop: Option<&'a AtomicBool>,
    #[allow(clippy::type_complexity, reason = "a callback")]
    pub(crate) on_step: Option<Box<dyn Fn(&SamplingStep) + 'a>>,
}

impl<'a> Request<'a> {
    /// An image from an unconditional model, of seed 0.
    pub fn unconditional() -> Self {
        Self {
            texts: None,
            negatives: Vec::new(),
            class: None,
            layout: None,
            image: None,
            mask: None,
            strength: None,
            feather: 0,
            variation: None,
            hires: None,
            seeds: vec![0],
            batch_size: 8,
            options: SamplingOptions::default(),
            classifier: None,
            controls: Vec::new(),
            watermark: None,
            alone: false,
            stop: None,
            on_step: None,
        }
    }

    /// An image of a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::texts([text])
    }

    /// Images of several texts, one for each seed.
    pub fn texts<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Self {
        Self { texts: Some(texts.into_iter().map(Into::into).collect()), ..Self::unconditional() }
    }

    /// An image of a class.
    pub fn class(class: i64) -> Self {
        Self { class: Some(class), ..Self::unconditional() }
    }

    /// An image of labeled boxes.
    pub fn layout(boxes: impl IntoIterator<Item = LayoutBox>) -> Self {
        Self { layout: Some(boxes.into_iter().collect()), ..Self::unconditional() }
    }

    /// The image that a super-resolution model enlarges, an inpainting model completes, or any other model starts from.
    ///
    /// # Shapes
    /// - `image`: `[1, 3, H, W]` in `[-1, 1]`
    #[must_use]
    pub fn image(self, image: Tensor) -> Self {
        Self { image: Some(image), ..self }
    }

    /// The mask: 1 where the image is to be sampled anew; or the one-hot map of a semantic model.
    ///
    /// # Shapes
    /// - `mask`: `[1, 1, H, W]`, 0 or 1; or `[1, K, H, W]`
    #[must_use]
    pub fn mask(self, mask: Tensor) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// The denoising strength of an initial image, 0 to 1; 0.75 where absent, and 1 with a mask.
    #[must_use]
    pub fn strength(self, strength: f64) -> Self {
        Self { strength: Some(strength), ..self }
    }

    /// The pixels over which the part sampled anew fades into the image, inside the border of the mask; 0 where absent.
    #[must_use]
    pub fn feather(self, pixels: u32) -> Self {
        Self { feather: pixels, ..self }
    }

    /// A second pass over the enlarged image.
    #[must_use]
    pub fn hires(self, hires: Hires) -> Self {
        Self { hires: Some(hires), ..self }
    }

    /// One image, of this seed.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.seeds([seed])
    }

    /// An image for each seed.
    #[must_use]
    pub fn seeds(self, seeds: impl IntoIterator<Item = u64>) -> Self {
        Self { seeds: seeds.into_iter().collect(), ..self }
    }

    /// The number of images sampled at once, at least 1.
    #[must_use]
    pub fn batch_size(self, images: usize) -> Self {
        Self { batch_size: images.max(1), ..self }
    }

    /// The text to guide away from.
    #[must_use]
    pub fn negative(self, text: impl Into<String>) -> Self {
        self.negatives([text])
    }

    /// The texts to guide away from, one for each seed; an empty one is none.
    #[must_use]
    pub fn negatives<S: Into<String>>(self, texts: impl IntoIterator<Item = S>) -> Self {
        Self { negatives: texts.into_iter().map(Into::into).collect(), ..self }
    }

    /// Interpolation of the noise of each image toward that of another seed.
    #[must_use]
    pub fn variation(self, variation: Variation) -> Self {
        Self { variation: Some(variation), ..self }
    }

    /// The number of steps.
    #[must_use]
    pub fn steps(mut self, steps: usize) -> Self {
        self.options.steps = Some(steps);
        self
    }

    /// Height and width in pixels.
    #[must_use]
    pub fn size(mut self, height: i64, width: i64) -> Self {
        self.options.size = Some([height, width]);
        self
    }

    /// The sampler.
    #[must_use]
    pub fn sampler(mut self, sampler: SamplerConfig) -> Self {
        self.options.sampler = Some(sampler);
        self
    }

    /// The noise levels.
    #[must_use]
    pub fn spacing(mut self, spacing: Spacing) -> Self {
        self.options.spacing = Some(spacing);
        self
    }

    /// The scale of classifier-free guidance; 1 is none.
    #[must_use]
    pub fn guidance(mut self, scale: f64) -> Self {
        self.options.guidance_scale = Some(scale);
        self
    }

    /// Sampling and decoding in overlapping tiles.
    #[must_use]
    pub fn tile(mut self, side: TileSize) -> Self {
        self.options.tile = Some(side);
        self
    }

    /// The syntax of texts; plain where absent.
    #[must_use]
    pub fn prompt_syntax(mut self, syntax: PromptSyntax) -> Self {
        self.options.text.syntax = syntax;
        self
    }

    /// The layer of CLIP's text model that is taken, counted from the last, which is 1; AUTOMATIC1111's "Clip skip", and
    /// diffusers' `clip_skip` + 1.
    #[must_use]
    pub fn clip_skip(mut self, layer: u32) -> Self {
        self.options.text.clip_skip = layer;
        self
    }

    /// Every option of sampling.
    #[must_use]
    pub fn options(self, options: SamplingOptions) -> Self {
        Self { options, ..self }
    }

    /// Guidance by a classifier of noisy latents.
    #[must_use]
    pub fn classifier(self, classifier: &'a GuidingClassifier) -> Self {
        Self { classifier: Some(classifier), ..self }
    }

    /// Steering by a ControlNet with a hint image; several add up.
    #[must_use]
    pub fn control(mut self, control: Control<'a>) -> Self {
        self.controls.push(control);
        self
    }

    /// The watermark of saved images; [`Watermark::of_txt2img`] for a text alone, else none, where absent.
    #[must_use]
    pub fn watermark(self, watermark: Watermark) -> Self {
        Self { watermark: Some(watermark), ..self }
    }

    /// `parameters` texts that do not name the batch of an image, as if each were generated alone.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// A flag that stops the generation before its next step, once it is set.
    #[must_use]
    pub fn stopped_by(self, stop: &'a AtomicBool) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// A callback for each step of each batch.
    #[must_use]
    pub fn on_step(self, on_step: impl Fn(&SamplingStep) + 'a) -> Self {
        Self { on_step: Some(Box::new(on_step)), ..self }
    }

    /// The text of image `index`.
    pub(crate) fn text_of(&self, index: usize) -> Option<&String> {
        one_or_each(self.texts.as_deref()?, index)
    }

    /// The text that image `index` is guided away from.
    pub(crate) fn negative_of(&self, index: usize) -> Option<&String> {
        one_or_each(&self.negatives, index).filter(|text| !text.is_empty())
    }

    /// The condition of a range of images, without image and mask where the model is not conditioned on them.
    pub(crate) fn prompt(&self, images: Range<usize>, on_image: bool) -> Prompt {
        let count = images.len();
        let repeated = |tensor: &Tensor| tensor.expand([count as i64, -1, -1, -1], false);
        let given = |tensor: &Option<Tensor>| tensor.as_ref().filter(|_| on_image).map(repeated);
        Prompt {
            text: self
                .texts
                .as_deref()
                .map(|texts| images.filter_map(|index| one_or_each(texts, index)).cloned().collect()),
            class: self.class.map(|class| Tensor::from_slice(&vec![class; count])),
            layout: self.layout.as_ref().map(|boxes| vec![boxes.clone(); count]),
            image: given(&self.image),
            mask: given(&self.mask),
            ..Prompt::default()
        }
    }

    /// The texts that a range of images is guided away from; none where all are empty.
    pub(crate) fn negative_prompt(&self, images: Range<usize>) -> Option<Prompt> {
        let texts: Vec<_> =
            images.map(|index| self.negative_of(index).cloned().unwrap_or_default()).collect();
        texts.iter().any(|text| !text.is_empty()).then(|| Prompt::text(texts))
    }

    /// Checks that each list has an entry for each seed; texts may have one for all.
    pub(crate) fn check_counts(&self) -> Result<()> {
        let seeds = self.seeds.len();
        if seeds == 0 {
            return Err(Error::invalid("seeds: expected at least 1, got 0"));
        }
        let lists = [
            ("texts", self.texts.as_ref().map(Vec::len), true),
            ("negative texts", Some(self.negatives.len()).filter(|count| *count > 0), true),
            ("variation seeds", self.variation.as_ref().map(|to| to.seeds.len()), false),
            ("variation strengths", self.variation.as_ref().map(|to| to.strengths.len()), false),
        ];
        for (name, count, one_serves) in lists {
            if let Some(count) = count
                && count != seeds
                && !(one_serves && count == 1)
            {
                return Err(Error::expected(name, format!("{seeds}, one for each seed"), count));
            }
        }
        Ok(())
    }
}

/// The text of a list that has one for all images, or one for each.
fn one_or_each(texts: &[String], index: usize) -> Option<&String> {
    texts.get(if texts.len() == 1 { 0 } else { index })
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Request")
            .field("texts", &self.texts)
            .field("class", &self.class)
            .field("seeds", &self.seeds)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
