//! Checks of requests, before they are jobs.

use ldm_conditioning::PromptSyntax;
use ldm_core::image::dimensions;
use ldm_pipelines::{DeepCache, TileSize};
use ldm_schedulers::{SamplerConfig, Spacing};

use crate::base64_image::decode;
use crate::jobs::InputFiles;
use crate::models::{ConditionedOn, ModelInfo, Models};
use crate::options::Limits;
use crate::render::{class, layout};
use crate::request::GenerationRequest;
use crate::{ErrorKind, ServeError};

/// Checks a request, and takes the files out of it.
///
/// # Errors
/// With the field and what it expects.
pub(crate) fn check(
    request: &mut GenerationRequest,
    models: &Models,
    limits: &Limits,
) -> Result<InputFiles, ServeError> {
    let model = models.find(request.model.as_deref())?;
    // The default may change before the job runs.
    request.model = Some(model.name.clone());
    check_texts(request, model, limits)?;
    check_condition(request, model)?;
    check_counts(request, limits)?;
    check_size(request, model, limits)?;
    check_sampling(request, model)?;
    request.loras.iter().try_for_each(|lora| models.check_lora(lora))?;
    let file = |field: &str, text: &Option<String>| {
        text.as_deref().map(|text| check_image(field, decode(field, text)?, limits)).transpose()
    };
    Ok(InputFiles {
        image: file("image", &request.image)?,
        mask: file("mask", &request.mask)?,
        label_map: file("label_map", &request.label_map)?,
    })
}

fn check_texts(request: &GenerationRequest, model: &ModelInfo, limits: &Limits) -> Result<(), ServeError> {
    for (field, text) in [("prompt", &request.prompt), ("negative_prompt", &request.negative_prompt)] {
        if text.chars().count() > limits.prompt {
            return Err(ServeError::invalid(field, format!("expected at most {} characters", limits.prompt)));
        }
        if text.contains('\0') {
            return Err(ServeError::invalid(field, "expected a text without NUL characters"));
        }
        if !text.is_empty() && !model.conditioning.has_text() {
            let kind = model.conditioning.shown();
            return Err(ServeError::expected(field, "a model conditioned on text", kind));
        }
    }
    let clip_skip = request.clip_skip.is_some_and(|skip| skip != 1);
    let weights = match &request.prompt_syntax {
        Some(word) => field("prompt_syntax", word.parse::<PromptSyntax>())? == PromptSyntax::Weights,
        None => false,
    };
    for (field, given) in [("clip_skip", clip_skip), ("prompt_syntax", weights)] {
        if given && !model.clip {
            return Err(ServeError::invalid(field, "expected a model whose text is read by CLIP"));
        }
    }
    Ok(())
}

fn check_condition(request: &GenerationRequest, model: &ModelInfo) -> Result<(), ServeError> {
    use ConditionedOn::{Class, Inpainting, LabelMap, Layout, LowResolution, TextInpainting};
    let needs = model.conditioning;
    let completes = matches!(needs, Inpainting | TextInpainting);
    let image = matches!(needs, LowResolution) || completes;
    let may_image = image || needs.starts_from_image();
    for (field, given, required, allowed) in [
        ("class", request.class.is_some(), needs == Class, needs == Class),
        ("layout", !request.layout.is_empty(), needs == Layout, needs == Layout),
        ("label_map", request.label_map.is_some(), needs == LabelMap, needs == LabelMap),
        ("image", request.image.is_some(), image, may_image),
        ("mask", request.mask.is_some(), completes, completes || needs.starts_from_image()),
        ("strength", request.strength.is_some(), false, needs.starts_from_image()),
        ("hires", request.hires.is_some(), false, needs.starts_from_image()),
    ] {
        if given && !allowed {
            let kind = needs.shown();
            return Err(ServeError::invalid(field, format!("not of use for {}, {kind}", model.name)));
        }
        if required && !given {
            return Err(ServeError::invalid(
                field,
                format!("expected one, since {} is {}", model.name, needs.shown()),
            ));
        }
    }
    if request.mask.is_some() && request.image.is_none() {
        return Err(ServeError::invalid("image", "expected one with a mask"));
    }
    if request.strength.is_some() && request.image.is_none() {
        return Err(ServeError::invalid("strength", "expected an initial image with it, got none"));
    }
    if request.image.is_some() && (request.hires.is_some() || request.variation.is_some()) {
        let field = if request.hires.is_some() { "hires" } else { "variation" };
        return Err(ServeError::invalid(field, "expected a request without an image"));
    }
    class(request, model)?;
    layout(request, model)?;
    share("strength", request.strength)
}

fn check_counts(request: &GenerationRequest, limits: &Limits) -> Result<(), ServeError> {
    for (field, value, most) in [
        ("n", Some(request.images()), limits.images),
        ("steps", request.steps, limits.steps),
        ("hires.steps", request.hires.and_then(|hires| hires.steps), limits.steps),
        ("layout", Some(request.layout.len().max(1)), 1000),
        ("loras", Some(request.loras.len().max(1)), 16),
    ] {
        if let Some(value) = value
            && !(1..=most).contains(&value)
        {
            return Err(ServeError::expected(field, format!("1 to {most}"), value));
        }
    }
    Ok(())
}

fn check_size(request: &GenerationRequest, model: &ModelInfo, limits: &Limits) -> Result<(), ServeError> {
    let (height, width) = match (request.height, request.width) {
        (Some(height), Some(width)) => (height, width),
        (None, None) => (model.height, model.width),
        (Some(_), None) => return Err(ServeError::invalid("width", "expected one with a height")),
        (None, Some(_)) => return Err(ServeError::invalid("height", "expected one with a width")),
    };
    for (field, side) in [("height", height), ("width", width)] {
        let multiple = model.multiple;
        if side <= 0 || side % multiple != 0 {
            let below = (side.max(0) / multiple * multiple).max(multiple);
            let expected =
                format!("a multiple of {multiple} (nearest: {below} and {})", below.saturating_add(multiple));
            return Err(ServeError::expected(field, expected, side));
        }
    }
    let scale = request.hires.map_or(1., |hires| hires.scale);
    if !(1. ..=8.).contains(&scale) {
        return Err(ServeError::expected("hires.scale", "a number above 1, at most 8", scale));
    }
    let pixels = height as f64 * width as f64 * scale * scale;
    if pixels > limits.pixels as f64 {
        let message = format!("expected at most {} pixels, got {pixels}", limits.pixels);
        return Err(ServeError::invalid("height and width", message));
    }
    Ok(())
}

fn check_sampling(request: &GenerationRequest, model: &ModelInfo) -> Result<(), ServeError> {
    let name = request.sampler.as_deref().unwrap_or(&model.sampler);
    let sampler = field("sampler", name.parse::<SamplerConfig>())?;
    if let Some(eta) = request.eta {
        field("eta", sampler.with_eta(eta))?;
    }
    if let Some(spacing) = &request.spacing {
        field("spacing", spacing.parse::<Spacing>())?;
    }
    if let Some(tile) = &request.tile {
        tile.parse::<TileSize>().map_err(|error| ServeError::invalid("tile", error))?;
    }
    if let Some(cache) = &request.deep_cache {
        cache.parse::<DeepCache>().map_err(|error| ServeError::invalid("deep_cache", error))?;
    }
    let weights = request.loras.iter().map(|lora| ("loras", Some(lora.weight)));
    let numbers =
        [("guidance_scale", request.guidance_scale), ("guidance_rescale", Some(request.guidance_rescale))];
    for (field, value) in numbers.into_iter().chain(weights) {
        if let Some(value) = value
            && !(value.is_finite() && value.abs() <= 1e4)
        {
            return Err(ServeError::expected(field, "a number", value));
        }
    }
    share("guidance_rescale", Some(request.guidance_rescale))?;
    share("token_merging", Some(request.token_merging))?;
    share("hires.strength", request.hires.map(|hires| hires.strength))?;
    share("variation.strength", request.variation.map(|to| to.strength))?;
    if let Some([low, high]) = request.guided_levels()
        && !(low >= 0. && low < high)
    {
        let message = format!("expected [low, high] with 0 <= low < high, got [{low}, {high}]");
        return Err(ServeError::invalid("guidance_interval", message));
    }
    Ok(())
}

fn share(name: &str, value: Option<f64>) -> Result<(), ServeError> {
    match value {
        Some(value) if !(0. ..=1.).contains(&value) => {
            Err(ServeError::expected(name, "a number in [0, 1]", value))
        }
        _ => Ok(()),
    }
}

/// The error of a parser, at a field.
fn field<T>(name: &str, result: ldm_core::Result<T>) -> Result<T, ServeError> {
    result.map_err(|error| {
        let message = error.to_string();
        match message.split_once(": ") {
            Some((_, rest)) => ServeError::invalid(name, rest),
            None => ServeError::invalid(name, message),
        }
    })
}

/// Checks the header of an image file, so that none is decoded that is too large or is none.
pub(crate) fn check_image(field: &str, bytes: Vec<u8>, limits: &Limits) -> Result<Vec<u8>, ServeError> {
    let [width, height] = dimensions(&bytes).map_err(|error| {
        ServeError::invalid(field, format!("expected a PNG, JPEG, WebP, BMP, GIF or TIFF file: {error}"))
    })?;
    if u64::from(width) * u64::from(height) > limits.pixels {
        let message = format!("{field}: expected at most {} pixels, got {width}x{height}", limits.pixels);
        return Err(ServeError { kind: ErrorKind::TooLarge, message, field: Some(field.to_owned()) });
    }
    Ok(bytes)
}

impl ConditionedOn {
    /// In messages.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::None => "an unconditional model",
            Self::Class => "a model conditioned on a class",
            Self::Text => "a model conditioned on a text",
            Self::Layout => "a model conditioned on a layout of boxes",
            Self::LowResolution => "a model conditioned on a low-resolution image",
            Self::LabelMap => "a model conditioned on a label map",
            Self::Inpainting => "a model conditioned on an image and a mask",
            Self::TextInpainting => "a model conditioned on an image, a mask and a text",
        }
    }
}
