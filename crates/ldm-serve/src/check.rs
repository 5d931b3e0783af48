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
    check_settings(request, model, limits)?;
    check_condition(request, model)?;
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

/// Checks what does not depend on the images of a request.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_settings(
    request: &GenerationRequest,
    model: &ModelInfo,
    limits: &Limits,
) -> Result<(), ServeError> {
    check_texts(request, model, limits)?;
    check_counts(request, limits)?;
    check_size(request, model, limits)?;
    check_sampling(request, model, limits)?;
    check_shortcuts(request, model)?;
    // The steps of a sampler's own default are known once the model is loaded.
    let listed = request.spacing.as_deref().filter(|spacing| spacing.contains(',')).map(levels);
    let known = listed.or(request.steps).or_else(|| request.sampler.is_none().then_some(model.steps));
    known.map_or(Ok(()), |steps| check_work(request, model, steps, limits))
}

/// Characters of a name or a word.
pub(crate) const LONGEST_NAME: usize = 200;
/// Pixels of the longest side of an image.
const LONGEST_SIDE: u32 = 1 << 14;

fn check_names(request: &GenerationRequest) -> Result<(), ServeError> {
    let labels = request.layout.iter().map(|labeled| ("layout", Some(&labeled.label)));
    let loras = request.loras.iter().map(|lora| ("loras", Some(&lora.name)));
    let words = [
        ("model", request.model.as_ref()),
        ("class", request.class.as_ref()),
        ("sampler", request.sampler.as_ref()),
        ("prompt_syntax", request.prompt_syntax.as_ref()),
        ("tile", request.tile.as_ref()),
        ("deep_cache", request.deep_cache.as_ref()),
    ];
    for (field, text) in words.into_iter().chain(labels).chain(loras) {
        if text.is_some_and(|text| text.chars().count() > LONGEST_NAME) {
            return Err(ServeError::invalid(field, format!("expected at most {LONGEST_NAME} characters")));
        }
    }
    Ok(())
}

/// Checks images x steps x megapixels, the measure of a job's time; `steps` are those of the first pass.
///
/// # Errors
/// With the limit.
pub(crate) fn check_work(
    request: &GenerationRequest,
    model: &ModelInfo,
    steps: usize,
    limits: &Limits,
) -> Result<(), ServeError> {
    if steps > limits.steps && request.steps.is_none() {
        let message = format!("expected at most {}, got {steps}, the default; name fewer", limits.steps);
        return Err(ServeError::invalid("steps", message));
    }
    let sides = [request.height.unwrap_or(model.height), request.width.unwrap_or(model.width)];
    let megapixels = sides.iter().map(|side| *side as f64).product::<f64>() / f64::from(1 << 20);
    let second = request
        .hires
        .map_or(0., |hires| hires.scale * hires.scale * hires.strength * hires.steps.unwrap_or(steps) as f64);
    let work = request.images() as f64 * megapixels * (steps as f64 + second);
    if work <= limits.work as f64 {
        return Ok(());
    }
    let message = format!(
        "expected at most {} images x steps x megapixels in a job, got {work:.0}; try fewer steps or images",
        limits.work
    );
    Err(ServeError::invalid("steps", message))
}

/// Checks that an image can be resized along its rows first, as PIL does, without a huge image in between.
///
/// # Errors
/// With the sizes.
pub(crate) fn check_resize(
    field: &str,
    from: (u32, u32),
    to: (u32, u32),
    limits: &Limits,
) -> Result<(), ServeError> {
    let between = u64::from(to.0) * u64::from(from.1);
    if from == to || between <= limits.pixels.saturating_mul(4) {
        return Ok(());
    }
    let message = format!(
        "expected an image whose proportions are nearer to {}x{}, got {}x{}; try to crop it",
        to.0, to.1, from.0, from.1
    );
    Err(ServeError::invalid(field, message))
}

fn check_texts(request: &GenerationRequest, model: &ModelInfo, limits: &Limits) -> Result<(), ServeError> {
    check_names(request)?;
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
    for (field, side) in [("height", height), ("width", width)] {
        if side > i64::from(LONGEST_SIDE) {
            return Err(ServeError::expected(field, format!("at most {LONGEST_SIDE}"), side));
        }
    }
    Ok(())
}

fn check_sampling(request: &GenerationRequest, model: &ModelInfo, limits: &Limits) -> Result<(), ServeError> {
    let name = request.sampler.as_deref().unwrap_or(&model.sampler);
    let sampler = field("sampler", name.parse::<SamplerConfig>())?;
    if let Some(eta) = request.eta {
        field("eta", sampler.with_eta(eta))?;
        share("eta", Some(eta))?;
    }
    if let Some(spacing) = &request.spacing {
        check_spacing(spacing, limits)?;
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

/// The number of levels of a list, which is that of its steps.
fn levels(list: &str) -> usize {
    list.bytes().filter(|byte| *byte == b',').count() + 1
}

fn check_spacing(text: &str, limits: &Limits) -> Result<(), ServeError> {
    let most = limits.steps;
    let count = levels(text);
    // A level has at most 30 characters: none has more than 17 digits.
    if count > most || text.len() > 32 * count.max(LONGEST_NAME / 32) {
        return Err(ServeError::invalid("spacing", format!("expected a name, or at most {most} levels")));
    }
    field("spacing", text.parse::<Spacing>()).map(|_| ())
}

/// Checks the settings that make sampling cheaper.
fn check_shortcuts(request: &GenerationRequest, model: &ModelInfo) -> Result<(), ServeError> {
    if let Some(tile) = &request.tile {
        let size = tile.parse::<TileSize>().map_err(|error| ServeError::invalid("tile", error))?;
        if let TileSize::Pixels(side) = size
            && side % model.multiple != 0
        {
            let expected = format!("a multiple of {}", model.multiple);
            return Err(ServeError::expected("tile", expected, side));
        }
    }
    if let Some(cache) = &request.deep_cache {
        let cache = cache.parse::<DeepCache>().map_err(|error| ServeError::invalid("deep_cache", error))?;
        if cache.interval > 1000 || cache.depth > 1000 {
            return Err(ServeError::invalid(
                "deep_cache",
                "expected an interval and a depth of at most 1000",
            ));
        }
        if request.tile.is_some() {
            return Err(ServeError::invalid("deep_cache", "expected none with tile"));
        }
    }
    if !(0. ..1.).contains(&request.token_merging) {
        let expected = "a share from 0 to below 1";
        return Err(ServeError::expected("token_merging", expected, format!("{:?}", request.token_merging)));
    }
    Ok(())
}

fn share(name: &str, value: Option<f64>) -> Result<(), ServeError> {
    match value {
        // Scientific: 1e308 has 309 digits.
        Some(value) if !(0. ..=1.).contains(&value) => {
            Err(ServeError::expected(name, "a number in [0, 1]", format!("{value:?}")))
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
    if width.max(height) > LONGEST_SIDE {
        let message =
            format!("{field}: expected sides of at most {LONGEST_SIDE} pixels, got {width}x{height}");
        return Err(ServeError { kind: ErrorKind::TooLarge, message, field: Some(field.to_owned()) });
    }
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
