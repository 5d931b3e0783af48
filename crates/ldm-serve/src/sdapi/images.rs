//! Initial images and masks of `img2img`, at the size that is sampled.

use image::imageops;
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};
use ldm_core::image as images;
use ldm_data::{Interpolation, resize};

use super::body::WebUiError;
use super::fill::filled;
use super::form::ImageForm;
use super::mask::{Area, Paste, around, blurred, doubled, part};
use crate::base64_image::{decode, encode};
use crate::check::{check_image, check_resize};
use crate::options::Limits;
use crate::{ErrorKind, ServeError};

/// The files of a job, and what is done with its images.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Base64 of a PNG.
    pub(crate) image: String,
    pub(crate) mask: Option<String>,
    /// None where the job's images are the result.
    pub(crate) paste: Option<Paste>,
}

/// The largest blur of a mask.
const LARGEST_BLUR: i64 = 64;

/// The image and the mask of a request at a width and height. `strength` is that of the request.
///
/// # Errors
/// For files that are no images, and settings that cannot be followed.
pub(crate) fn prepare(
    form: &ImageForm,
    [width, height]: [u32; 2],
    strength: f64,
    limits: &Limits,
) -> Result<Prepared, WebUiError> {
    refuse(form, strength)?;
    let image = read("init_images", init_image(form)?, limits)?;
    let image = flattened(image);
    let same = image.dimensions() == (width, height);
    if form.resize_mode == 3 && !same {
        let message = "expected 0 to 2 for an image of another size, got 3, which enlarges latents";
        return Err(WebUiError::invalid("resize_mode", message));
    }
    if form.resize_mode == 0 {
        check_resize("init_images", image.dimensions(), (width, height), limits)?;
    }
    let fit = |image: &RgbImage, by| fitted(image, form.resize_mode, width, height, by);
    let mask = match form.mask.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(share(form, read("mask", text, limits)?, image.dimensions())?),
        None => None,
    };
    let Some(share) = mask else {
        return Ok(Prepared { image: png(&fit(&image, Interpolation::Lanczos)), mask: None, paste: None });
    };
    if form.inpaint_full_res {
        let padding = form.inpaint_full_res_padding.clamp(0, 4096) as u32;
        let Some(area) = around(&share, padding, width, height) else {
            // As the web UI: a black mask is none.
            return Ok(Prepared {
                image: png(&fit(&image, Interpolation::Lanczos)),
                mask: None,
                paste: None,
            });
        };
        check_resize("init_images", (width, height), (area.width, area.height), limits)?;
        let around = crop(&image, area);
        let around = fitted(&around, 2, width, height, Interpolation::Lanczos);
        let lit = lit(&fitted(&rgb(&part(&share, area)), 2, width, height, Interpolation::Nearest));
        let whole = area == Area { x: 0, y: 0, width: image.width(), height: image.height() };
        let paste = Paste { image, share, area: Some(area) };
        let exact = whole && same && is_hard(&paste.share);
        return Ok(inputs(form, strength, around, &lit, Some(paste).filter(|_| !exact)));
    }
    let image = fit(&image, Interpolation::Lanczos);
    let share = gray(&fit(&rgb(&share), Interpolation::Nearest));
    let lit = lit(&rgb(&share));
    let paste = (!is_hard(&share)).then(|| Paste { image: image.clone(), share, area: None });
    Ok(inputs(form, strength, image, &lit, paste))
}

/// The files of a job; what is under the mask only counts where noise does not replace it.
fn inputs(
    form: &ImageForm,
    strength: f64,
    image: RgbImage,
    lit: &GrayImage,
    paste: Option<Paste>,
) -> Prepared {
    let image = if form.inpainting_fill == 0 && strength < 1. { filled(&image, lit) } else { image };
    Prepared { image: png(&image), mask: Some(png(&rgb(lit))), paste }
}

/// The initial image.
///
/// # Errors
/// [`ErrorKind::NotFound`] without one, and for several.
pub(crate) fn init_image(form: &ImageForm) -> Result<&str, WebUiError> {
    let mut given = form.init_images.iter().flatten().filter(|text| !text.is_empty());
    match (given.next(), given.next()) {
        (Some(image), None) => Ok(image),
        (None, _) => Err(ServeError::new(ErrorKind::NotFound, "Init image not found").into()),
        (Some(_), Some(_)) => Err(WebUiError::invalid("init_images", "expected one image, got several")),
    }
}

/// Width and height of the images to sample.
///
/// # Errors
/// For none, and for more pixels than the limit.
pub(crate) fn checked_size(size: [i64; 2], limits: &Limits) -> Result<[u32; 2], WebUiError> {
    let pixels = size.iter().map(|side| *side as f64).product::<f64>();
    if size.iter().any(|side| *side <= 0) || pixels > limits.pixels as f64 {
        let message = format!("expected at most {} pixels, got {}x{}", limits.pixels, size[0], size[1]);
        return Err(WebUiError::invalid("width and height", message));
    }
    Ok(size.map(|side| side as u32))
}

fn refuse(form: &ImageForm, strength: f64) -> Result<(), WebUiError> {
    if !(0..=3).contains(&form.resize_mode) {
        return Err(ServeError::expected("resize_mode", "0 to 3", form.resize_mode).into());
    }
    if form.initial_noise_multiplier != 1. {
        return Err(
            ServeError::expected("initial_noise_multiplier", "1", form.initial_noise_multiplier).into()
        );
    }
    let Some(_) = &form.mask else { return Ok(()) };
    if !(0..=3).contains(&form.inpainting_fill) || form.inpainting_fill > 1 && strength < 1. {
        let expected = "0 or 1, or a denoising strength of 1";
        return Err(ServeError::expected("inpainting_fill", expected, form.inpainting_fill).into());
    }
    for (field, blur) in ["mask_blur_x", "mask_blur_y"].into_iter().zip(form.blur()) {
        if !(0..=LARGEST_BLUR).contains(&blur) {
            return Err(ServeError::expected(field, format!("0 to {LARGEST_BLUR}"), blur).into());
        }
    }
    Ok(())
}

/// An image of base64, within the limits.
///
/// # Errors
/// With the field.
pub(crate) fn read(field: &str, text: &str, limits: &Limits) -> Result<DynamicImage, WebUiError> {
    let bytes = check_image(field, decode(field, text)?, limits)?;
    images::decode_upright(&bytes)
        .map_err(|error| WebUiError::invalid(field, format!("expected a readable image: {error}")))
}

/// The image on white, as the web UI has it.
fn flattened(image: DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let rgba = image.into_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, alpha] = rgba.get_pixel(x, y).0.map(u32::from);
        Rgb([r, g, b].map(|value| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    })
}

/// The share of the sampled image at each pixel of the initial image.
fn share(form: &ImageForm, mask: DynamicImage, size: (u32, u32)) -> Result<GrayImage, WebUiError> {
    let (mask, by_alpha) = images::mask_of(mask);
    let mut mask = imageops::grayscale(&mask);
    if by_alpha {
        mask.iter_mut().for_each(|value| *value = if *value > 128 { 255 } else { 0 });
    }
    if mask.dimensions() != size {
        mask = gray(&resize(&rgb(&mask), size.0, size.1, Interpolation::Nearest));
    }
    match form.inpainting_mask_invert {
        0 => {}
        1 => mask.iter_mut().for_each(|value| *value = 255 - *value),
        other => return Err(ServeError::expected("inpainting_mask_invert", "0 or 1", other).into()),
    }
    Ok(doubled(&blurred(&mask, form.blur().map(|blur| blur as u32))))
}

/// An image at another size: 0 stretches, 1 covers it and crops, 2 fits into it and repeats the border.
fn fitted(image: &RgbImage, mode: i64, width: u32, height: u32, by: Interpolation) -> RgbImage {
    if image.dimensions() == (width, height) {
        return image.clone();
    }
    match mode {
        1 => covering(image, width, height, by),
        2 => within(image, width, height, by),
        _ => resize(image, width, height, by),
    }
}

/// The center of an image, of the ratio of the result. Cropped first: a narrow image that covers the result would be huge.
fn covering(image: &RgbImage, width: u32, height: u32, by: Interpolation) -> RgbImage {
    let from = [image.width(), image.height()];
    let ratios = [(width, from[0]), (height, from[1])].map(|(to, from)| f64::from(to) / f64::from(from));
    let scale = ratios[0].max(ratios[1]);
    let [wide, high] = [(width, from[0]), (height, from[1])]
        .map(|(to, from)| ((f64::from(to) / scale).round() as u32).clamp(1, from));
    let area = Area { x: (from[0] - wide) / 2, y: (from[1] - high) / 2, width: wide, height: high };
    resize(&crop(image, area), width, height, by)
}

/// The image within the result, whose border repeats that of the image.
fn within(image: &RgbImage, width: u32, height: u32, by: Interpolation) -> RgbImage {
    let ratios =
        [(width, image.width()), (height, image.height())].map(|(to, from)| f64::from(to) / f64::from(from));
    let scale = ratios[0].min(ratios[1]);
    let side = |from: u32, to: u32| ((f64::from(from) * scale).round() as u32).clamp(1, to);
    let (wide, high) = (side(image.width(), width), side(image.height(), height));
    let scaled = resize(image, wide, high, by);
    let place = |at: u32, count: u32, from: u32| at.saturating_sub((count - from) / 2).min(from - 1);
    RgbImage::from_fn(width, height, |x, y| *scaled.get_pixel(place(x, width, wide), place(y, height, high)))
}

fn crop(image: &RgbImage, area: Area) -> RgbImage {
    imageops::crop_imm(image, area.x, area.y, area.width, area.height).to_image()
}

/// White where the mask is not black: what is sampled anew.
fn lit(mask: &RgbImage) -> GrayImage {
    GrayImage::from_fn(mask.width(), mask.height(), |x, y| {
        Luma([if mask.get_pixel(x, y).0[0] > 0 { 255 } else { 0 }])
    })
}

/// True for a mask of black and white alone, with which the library's own composite is the same.
fn is_hard(mask: &GrayImage) -> bool {
    mask.iter().all(|value| matches!(value, 0 | 255))
}

fn rgb(gray: &GrayImage) -> RgbImage {
    RgbImage::from_fn(gray.width(), gray.height(), |x, y| Rgb([gray.get_pixel(x, y).0[0]; 3]))
}

fn gray(rgb: &RgbImage) -> GrayImage {
    GrayImage::from_fn(rgb.width(), rgb.height(), |x, y| Luma([rgb.get_pixel(x, y).0[0]]))
}

fn png(image: &RgbImage) -> String {
    encode(&images::png(&DynamicImage::from(image.clone()), &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_fitted_by_the_mode() {
        let image =
            RgbImage::from_fn(40, 20, |x, _| if x < 20 { Rgb([200, 0, 0]) } else { Rgb([0, 0, 200]) });
        for by in [Interpolation::Lanczos, Interpolation::Nearest] {
            let of = |mode, width, height| fitted(&image, mode, width, height, by);
            for mode in 0..=2 {
                assert_eq!(of(mode, 16, 32).dimensions(), (16, 32), "{mode}");
                assert_eq!(of(mode, 40, 20), image, "{mode}");
            }
            // Cropped at the center, and the border repeated above and below.
            assert_eq!(of(1, 20, 20).get_pixel(1, 0), &Rgb([200, 0, 0]));
            assert_eq!(of(2, 40, 40).get_pixel(1, 0), &Rgb([200, 0, 0]));
            assert_eq!(of(2, 40, 40).get_pixel(38, 39), &Rgb([0, 0, 200]));
            let half = fitted(&image, 1, 20, 20, by);
            assert_eq!((half.get_pixel(8, 9), half.get_pixel(11, 9)), (&Rgb([200, 0, 0]), &Rgb([0, 0, 200])));
            let narrow = RgbImage::new(1, 3_000_000);
            assert_eq!(fitted(&narrow, 1, 2048, 2048, by).dimensions(), (2048, 2048));
        }
    }

    #[test]
    fn transparent_pixels_are_white() {
        let rgba = image::RgbaImage::from_raw(2, 1, vec![10, 20, 30, 255, 10, 20, 30, 0]).unwrap();
        assert_eq!(flattened(rgba.into()).into_raw(), [10, 20, 30, 255, 255, 255]);
    }
}
