//! Pipelines: a model from a path, and images from requests.

use std::path::Path;

use ldm_conditioning::EmbeddingFile;
use ldm_core::device::parse_device;
use ldm_core::{Error, Result};
use ldm_pipelines::{
    ConditioningKind, GenerateRequest, Init, InitImage, LatentDiffusion, LoadOptions, Model, Sampling,
    Variation, generate, lora::LoraFile,
};
use ldm_schedulers::SamplingStep;
use tch::Tensor;

use crate::{Hires, Images, Inpainting, Parameters, Request, SafetyFilter, SafetyMode, Watermark};

/// A diffusion model, ready to generate.
#[derive(Debug)]
pub struct Pipeline {
    model: Box<LatentDiffusion>,
    name: String,
    /// Of the weights, for the `parameters` of images.
    ema: bool,
    overrides: Vec<String>,
    loras: Vec<LoraFile>,
    notes: Vec<String>,
    safety: Option<SafetyFilter>,
}

impl Pipeline {
    /// Opens a run directory, a model folder, a diffusers folder, or a checkpoint file (that of the model inside the program:
    /// [`model_path`](crate::model_path)), on CUDA where it works, else on
    /// the CPU, in f32.
    ///
    /// # Errors
    /// As [`Model::open`]; [`Error::Format`] for a first stage alone.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &LoadOptions::new(parse_device("auto")?))
    }

    /// [`open`](Self::open) with a device, a dtype, a config, a tokenizer.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let path = path.as_ref();
        let mut notes = Vec::new();
        match Model::open(path, options, &mut |note| notes.push(note.to_owned()))? {
            Model::Diffusion(model) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let safety = SafetyFilter::find(path, None, SafetyMode::Block, options.device)?;
                let (ema, overrides) = (options.ema, options.overrides.clone());
                Ok(Self { model, name, ema, overrides, loras: Vec::new(), notes, safety })
            }
            Model::FirstStage(_) => {
                Err(Error::format(path, "expected a diffusion model, got a first stage alone"))
            }
        }
    }

    /// A pipeline of a loaded model; `name` is the model's in the `parameters` of images.
    pub fn new(model: LatentDiffusion, name: impl Into<String>) -> Self {
        Self {
            model: Box::new(model),
            name: name.into(),
            ema: true,
            overrides: Vec::new(),
            loras: Vec::new(),
            notes: Vec::new(),
            safety: None,
        }
    }

    /// The model.
    pub fn model(&self) -> &LatentDiffusion {
        &self.model
    }

    /// Adds a learned word (textual inversion), which prompts may then use; returns it.
    ///
    /// # Errors
    /// As [`EmbeddingFile::read`]; [`Error::Invalid`] for vectors of another width than the model's, a word that exists,
    /// and a model without CLIP's text model.
    pub fn add_embedding(&mut self, file: &EmbeddingFile) -> Result<String> {
        let embedding = file.read()?;
        let token = embedding.token.clone();
        self.model.conditioner.add_embedding(embedding)?;
        Ok(token)
    }

    /// Names the model in the `parameters` of images; by default that is the last part of its path.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Merges LoRAs into the weights.
    ///
    /// # Errors
    /// As [`LatentDiffusion::merge`].
    pub fn merge(&mut self, loras: &[LoraFile]) -> Result<()> {
        self.model.merge(loras)?;
        self.loras.extend_from_slice(loras);
        Ok(())
    }

    /// Replaces the safety checker: by default that of the model's folder, which blocks, where there is one.
    #[must_use]
    pub fn safety(self, safety: Option<SafetyFilter>) -> Self {
        Self { safety, ..self }
    }

    /// Warnings of loading.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Generates an image for each seed of `request`, in batches. The noise of an image does not depend on its batch.
    ///
    /// # Errors
    /// As [`generate`]; [`Error::Invalid`] without seeds, for lists of another length, and for [`Hires`](crate::Hires) with an image;
    /// [`Error::MissingInput`] for a mask without an image.
    pub fn generate(&self, request: &Request) -> Result<Images> {
        request.check_counts()?;
        let mut notes = self.text_warnings(request);
        let sampling = request.options.resolve(&self.model, &mut |note| notes.push(note.to_owned()))?;
        let start = Start::new(request, ConditioningKind::of(&self.model.config))?;
        if let Some(hires) = &request.hires {
            let count = request.batch_size.min(request.seeds.len());
            hires.check(&self.model, &sampling, count, request.image.is_some())?;
        }
        let (mut latents, mut images, mut in_f32) = (Vec::new(), Vec::new(), false);
        let mut flags = Vec::new();
        for (batch, seeds) in request.seeds.chunks(request.batch_size).enumerate() {
            let first = batch * request.batch_size;
            let range = first..first + seeds.len();
            let prompt = request.prompt(range.clone(), start.on_image);
            let negative = request.negative_prompt(range.clone());
            let variation = request.variation.as_ref().map(|to| Variation {
                seeds: to.seeds[range.clone()].to_vec(),
                strengths: to.strengths[range.clone()].to_vec(),
            });
            let init = match (&start.init, &variation) {
                (Some(image), _) => Init::Image(image),
                (None, Some(variation)) => Init::Between(variation),
                (None, None) => Init::Seeds,
            };
            let batch = GenerateRequest {
                negative: negative.as_ref(),
                init,
                classifier: request.classifier,
                controls: &request.controls,
                stop: request.stop,
                ..GenerateRequest::new(&prompt, seeds, &sampling)
            };
            let mut observe = |step: SamplingStep| {
                if let Some(on_step) = &request.on_step {
                    on_step(&step);
                }
            };
            let made = match &request.hires {
                Some(hires) => hires.generate(&self.model, &batch, &mut observe)?,
                None => generate(&self.model, &batch, &mut observe)?,
            };
            in_f32 |= made.decoded_in_f32;
            latents.push(made.latents);
            let made = match &start.inpainting {
                Some(inpainting) => inpainting.composite(&made.images),
                None => made.images,
            };
            images.push(match &self.safety {
                Some(safety) => safety.check(made, &mut flags)?,
                None => made,
            });
        }
        if in_f32 {
            notes.push(format!("the first stage overflowed in {:?}, and was run in f32", self.model.kind()));
        }
        notes.extend(self.model.recordings.take_failure());
        let flagged = flags.iter().filter(|flag| **flag).count();
        notes.extend(self.safety.as_ref().and_then(|safety| safety.report(flagged, flags.len())));
        let (tensor, latents) = (Tensor::cat(&images, 0), Tensor::cat(&latents, 0));
        let watermark = request.watermark.unwrap_or_else(|| match request.image {
            None => Watermark::of_txt2img(&self.model),
            Some(_) => Watermark::Never,
        });
        let size = match &request.hires {
            Some(_) => Hires::first_size(&self.model, &sampling),
            None => [tensor.size()[2], tensor.size()[3]],
        };
        let parameters = self.parameters(request, &sampling, &start, size);
        Ok(Images { tensor, latents, parameters, watermark, notes, flags })
    }

    fn text_warnings(&self, request: &Request) -> Vec<String> {
        let texts = request.texts.as_deref().unwrap_or_default();
        let each = [("the prompt", texts), ("the negative prompt", &request.negatives)];
        let options = &request.options.text;
        each.into_iter().flat_map(|(name, texts)| self.model.text_warnings(name, texts, options)).collect()
    }

    /// The `parameters` text of each image.
    fn parameters(
        &self,
        request: &Request,
        sampling: &Sampling,
        start: &Start,
        size: [i64; 2],
    ) -> Vec<String> {
        let class = request.class.map_or(String::new(), |class| {
            let name = self.model.classes.get(class as usize).cloned();
            format!("class: {}\n", name.unwrap_or_else(|| class.to_string()))
        });
        let spacing = request.options.spacing.as_ref().map(ToString::to_string);
        let embeddings = self.model.conditioner.learned_words();
        let each = request.seeds.iter().enumerate().map(|(index, seed)| {
            let mut heading = request.text_of(index).map_or(String::new(), |text| format!("{text}\n"));
            if let Some(negative) = request.negative_of(index) {
                heading.extend(["Negative prompt: ", negative, "\n"]);
            }
            heading.push_str(&class);
            let start_of_batch = index / request.batch_size * request.batch_size;
            let batch = request.batch_size.min(request.seeds.len() - start_of_batch);
            let batch = if request.alone { [0, 1] } else { [index - start_of_batch, batch] };
            let variation = request.variation.as_ref().map(|to| (to.seeds[index], to.strengths[index]));
            let parameters = Parameters {
                sampling,
                seed: *seed,
                size,
                batch,
                model: &self.name,
                loras: &self.loras,
                variation,
                strength: start.init.as_ref().map(InitImage::strength),
                hires: request.hires.as_ref(),
                guidance_interval: request.options.guidance_interval,
                spacing: spacing.as_deref(),
                init_noise: None,
                literal_brackets: self.model.reads_brackets_as_text(&heading, &sampling.text),
                embeddings: &embeddings,
                controls: &request.controls,
                dtype: self.model.kind(),
                ema: self.ema,
                overrides: &self.overrides,
            };
            format!("{heading}{parameters}")
        });
        each.collect()
    }
}

/// The use of a request's image and mask by a kind of model.
struct Start {
    /// True when the model is conditioned on them.
    on_image: bool,
    init: Option<InitImage>,
    inpainting: Option<Inpainting>,
}

impl Start {
    fn new(request: &Request, kind: ConditioningKind) -> Result<Self> {
        use ConditioningKind::{Hybrid, Inpainting as Completes, LowResolution, SemanticMap, TextInpainting};
        let on_image = matches!(kind, Completes | TextInpainting | LowResolution | SemanticMap | Hybrid);
        let pastes = !matches!(kind, LowResolution | SemanticMap | Hybrid);
        let shallow = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::shallow_clone);
        let (image, mask) = (shallow(&request.image), shallow(&request.mask).filter(|_| pastes));
        let inpainting = match (&image, &mask) {
            (Some(image), Some(mask)) => {
                Some(Inpainting::new(image.shallow_clone(), mask.shallow_clone(), request.feather)?)
            }
            (None, Some(_)) => return Err(Error::MissingInput("image")),
            _ => None,
        };
        let strength = request.strength.unwrap_or(if mask.is_some() { 1. } else { 0.75 });
        let init =
            image.filter(|_| !on_image).map(|image| InitImage::new(image, strength, mask)).transpose()?;
        Ok(Self { on_image, init, inpainting })
    }
}
