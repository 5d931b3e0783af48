//! Requests of jobs as requests of the library.

use std::path::Path;

use image::RgbImage;
use image::imageops;
use ldm::{Hires, MaskFile, Request, one_hot_labels, parse_class, read_labels};
use ldm_core::{LayoutBox, image as images};
use ldm_data::{Interpolation, resize};
use ldm_pipelines::{LatentDiffusion, SamplingOptions, Variation};
use tch::Tensor;

use crate::ServeError;
use crate::active::BatchPart;
use crate::job::Job;
use crate::jobs::Jobs;
use crate::models::{ConditionedOn, ModelInfo};
use crate::request::GenerationRequest;

/// The request for images of jobs with one batch key, in the order of the parts.
///
/// # Errors
/// For inputs that do not fit the model; when files cannot be read.
pub(crate) fn request<'a>(
    parts: &[BatchPart],
    model: &LatentDiffusion,
    info: &ModelInfo,
    jobs: &Jobs,
) -> Result<Request<'a>, ServeError> {
    let each: Vec<(&Job, usize)> =
        parts.iter().flat_map(|part| part.images.clone().map(|index| (&*part.job, index))).collect();
    let shared = &parts[0].job.request;
    let texts =
        |of: fn(&GenerationRequest) -> &String| each.iter().map(move |(job, _)| of(&job.request).clone());
    let mut request = if info.conditioning.has_text() {
        Request::texts(texts(|request| &request.prompt)).negatives(texts(|request| &request.negative_prompt))
    } else if info.conditioning == ConditionedOn::Layout {
        Request::layout(layout(shared, info)?)
    } else if let Some(class) = class(shared, info)? {
        Request::class(class)
    } else {
        Request::unconditional()
    };
    request = request.seeds(each.iter().map(|(job, index)| job.seed(*index))).batch_size(each.len()).alone();
    let options = options(shared)?;
    let size = options.size;
    request = request
        .options(SamplingOptions { size: if shared.image.is_some() { None } else { size }, ..options });
    request = inputs(request, shared, model, info, size, jobs)?;
    if let Some(strength) = shared.strength {
        request = request.strength(strength);
    }
    if let Some(hires) = &shared.hires {
        request = request.hires(Hires::new(hires.scale, hires.strength, hires.steps)?);
    }
    if shared.variation.is_some() {
        let (seeds, strengths) = each
            .iter()
            .filter_map(|(job, index)| {
                let to = job.request.variation?;
                Some((to.seed.wrapping_add(*index as u64), to.strength))
            })
            .unzip();
        request = request.variation(Variation { seeds, strengths });
    }
    Ok(request)
}

/// The image, the mask or the label map.
fn inputs<'a>(
    mut request: Request<'a>,
    shared: &GenerationRequest,
    model: &LatentDiffusion,
    info: &ModelInfo,
    size: Option<[i64; 2]>,
    jobs: &Jobs,
) -> Result<Request<'a>, ServeError> {
    if let Some(name) = &shared.label_map {
        let labels = read_labels(&jobs.input(name), None).map_err(|error| named("label_map", error))?;
        let map = one_hot_labels(&labels, model).map_err(|error| named("label_map", error))?;
        return Ok(request.mask(map));
    }
    let Some(name) = &shared.image else { return Ok(request) };
    let mut pixels = images::read(jobs.input(name)).map_err(|error| named("image", error))?;
    if let (Some([height, width]), false) = (size, info.conditioning == ConditionedOn::LowResolution) {
        pixels = covering(pixels, width as u32, height as u32);
    }
    let sides = [i64::from(pixels.height()), i64::from(pixels.width())];
    match info.conditioning {
        ConditionedOn::LowResolution => model.unet.check_size(sides),
        _ => model.check_image_size(sides),
    }
    .map_err(|error| named("image", error))?;
    if let Some(name) = &shared.mask {
        request = request.mask(mask(&jobs.input(name), pixels.dimensions())?).feather(shared.feather);
    }
    Ok(request.image(images::from_rgb8(&pixels).unsqueeze(0)))
}

/// The error of an input, without the server's path.
fn named(field: &str, error: ldm_core::Error) -> ServeError {
    use ldm_core::Error::{Data, Format, Invalid};
    match error {
        Format { message, .. } | Data { message, .. } | Invalid(message) => {
            ServeError::invalid(field, message)
        }
        other => other.into(),
    }
}

/// `[1, 1, H, W]`, 1 where the image is sampled anew.
fn mask(path: &Path, size: (u32, u32)) -> Result<Tensor, ServeError> {
    let read = MaskFile::read(path, size, true).and_then(|file| file.area());
    read.map_err(|error| match error {
        ldm_core::Error::Invalid(_) => {
            ServeError::invalid("mask", "expected an area to sample anew, got none")
        }
        other => named("mask", other),
    })
}

/// The largest central part of an image with the proportions of `width` x `height`, resized to it.
pub(crate) fn covering(image: RgbImage, width: u32, height: u32) -> RgbImage {
    if image.dimensions() == (width, height) {
        return image;
    }
    // Cropped first: the whole of a long narrow image would be resized to a huge one.
    let (wide, high) = (f64::from(image.width()), f64::from(image.height()));
    let scale = (f64::from(width) / wide).max(f64::from(height) / high);
    let part = |side: u32, most: u32| ((f64::from(side) / scale).round() as u32).clamp(1, most);
    let (across, down) = (part(width, image.width()), part(height, image.height()));
    let (left, top) = ((image.width() - across) / 2, (image.height() - down) / 2);
    let part = imageops::crop_imm(&image, left, top, across, down).to_image();
    resize(&part, width, height, Interpolation::Bicubic)
}

/// The class of a request for a model of classes.
///
/// # Errors
/// For one that the model does not know.
pub(crate) fn class(shared: &GenerationRequest, info: &ModelInfo) -> Result<Option<i64>, ServeError> {
    let (Some(word), Some(count)) = (&shared.class, info.classes) else { return Ok(None) };
    let class = parse_class(word, &info.class_names, count);
    class
        .map(Some)
        .map_err(|error| ServeError::invalid("class", error.to_string().trim_start_matches("--class: ")))
}

/// The boxes of a request.
///
/// # Errors
/// For a label that the model does not know, and for boxes beyond the image.
pub(crate) fn layout(shared: &GenerationRequest, info: &ModelInfo) -> Result<Vec<LayoutBox>, ServeError> {
    let names = &info.class_names;
    let each = shared.layout.iter().map(|labeled| {
        let rect = labeled.rect;
        let [x, y, width, height] = rect;
        let inside = |start: f64, extent: f64| start >= 0. && extent > 0. && start + extent <= 1.0005;
        if !(inside(x, width) && inside(y, height)) {
            let message = format!("expected [x, y, width, height] within [0, 1], got {rect:?}");
            return Err(ServeError::invalid("layout", message));
        }
        let known = names.iter().position(|name| *name == labeled.label).map(|index| index as i64);
        let number = labeled.label.parse().ok();
        let in_range = |number: &i64| *number >= 0 && (names.is_empty() || *number < names.len() as i64);
        let class = known.or(number.filter(in_range)).ok_or_else(|| {
            let expected = if names.is_empty() {
                "class numbers, since the model has no class names".to_owned()
            } else {
                format!("labels among {}", names.join(", "))
            };
            ServeError::expected("layout", expected, &labeled.label)
        })?;
        Ok(LayoutBox { class, rect })
    });
    each.collect()
}

/// The options of sampling.
fn options(request: &GenerationRequest) -> Result<SamplingOptions, ServeError> {
    let mut options = SamplingOptions {
        sampler: request.sampler.as_deref().map(str::parse).transpose()?,
        eta: request.eta,
        spacing: request.spacing.as_deref().map(str::parse).transpose()?,
        steps: request.steps,
        guidance_scale: request.guidance_scale,
        guidance_rescale: request.guidance_rescale,
        guidance_interval: request.guided_levels(),
        size: request.height.zip(request.width).map(|(height, width)| [height, width]),
        tile: parsed("tile", request.tile.as_deref())?,
        deep_cache: parsed("deep_cache", request.deep_cache.as_deref())?,
        token_merging: request.token_merging,
        ..SamplingOptions::default()
    };
    options.text.clip_skip = request.clip_skip.unwrap_or(1);
    if let Some(syntax) = &request.prompt_syntax {
        options.text.syntax = syntax.parse()?;
    }
    Ok(options)
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: Option<&str>,
) -> Result<Option<T>, ServeError> {
    text.map(str::parse).transpose().map_err(|error| ServeError::invalid(field, error))
}

/// The steps of each image.
///
/// # Errors
/// As [`SamplingOptions::resolve`].
pub(crate) fn steps(
    request: &GenerationRequest,
    model: &LatentDiffusion,
    info: &ModelInfo,
) -> Result<usize, ServeError> {
    let steps = options(request)?.resolve(model, &mut |_| {})?.steps;
    let starts = request.image.is_some() && info.conditioning.starts_from_image();
    let default = if request.mask.is_some() { 1. } else { 0.75 };
    Ok(match (&request.hires, starts) {
        (Some(hires), _) => steps + (hires.strength * hires.steps.unwrap_or(steps) as f64) as usize,
        (None, true) => (request.strength.unwrap_or(default) * steps as f64) as usize,
        (None, false) => steps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_images_are_cropped_before_they_are_resized() {
        let long = RgbImage::from_fn(2, 1_000_000, |_, y| image::Rgb([(y / 5000) as u8; 3]));
        let cut = covering(long, 64, 64);
        assert_eq!((cut.dimensions(), cut.get_pixel(0, 0).0), ((64, 64), [99; 3]));
    }
}
