//! `extra-single-image` and `extra-batch-images`: enlarged images.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use image::{DynamicImage, RgbImage};
use ldm_core::image as images;
use ldm_data::{Interpolation, resize};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ORIGIN;
use super::body::{JsonObject, WebUiError};
use super::png_info::texts;
use crate::base64_image::{decode, encode};
use crate::check::check_image;
use crate::job::JobState;
use crate::models::ConditionedOn;
use crate::options::Limits;
use crate::request::GenerationRequest;
use crate::server::App;
use crate::{ErrorKind, ServeError};

/// Settings of enlarging images.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct ExtrasForm {
    /// 0 enlarges by `upscaling_resize`, 1 to `upscaling_resize_w` and `upscaling_resize_h`.
    resize_mode: i64,
    gfpgan_visibility: f64,
    codeformer_visibility: f64,
    upscaling_resize: f64,
    upscaling_resize_w: i64,
    upscaling_resize_h: i64,
    /// Crops to the size rather than to cover it.
    upscaling_crop: bool,
    /// A name of `/sdapi/v1/upscalers`; `None` leaves the size.
    upscaler_1: String,
    upscaler_2: String,
    /// The share of the second upscaler.
    extras_upscaler_2_visibility: f64,
    /// Base64 or a `data:` URL.
    image: String,
    /// Images of a batch.
    #[serde(rename = "imageList")]
    images: Vec<NamedImage>,
}

/// An image of a batch.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct NamedImage {
    data: String,
    #[serde(default)]
    name: String,
}

impl Default for ExtrasForm {
    fn default() -> Self {
        Self {
            resize_mode: 0,
            gfpgan_visibility: 0.,
            codeformer_visibility: 0.,
            upscaling_resize: 2.,
            upscaling_resize_w: 512,
            upscaling_resize_h: 512,
            upscaling_crop: true,
            upscaler_1: "None".to_owned(),
            upscaler_2: "None".to_owned(),
            extras_upscaler_2_visibility: 0.,
            image: String::new(),
            images: Vec::new(),
        }
    }
}

/// An enlarged image.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnlargedImage {
    html_info: String,
    /// Base64.
    image: String,
}

/// Enlarged images.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnlargedImages {
    html_info: String,
    /// Base64.
    images: Vec<String>,
}

/// `POST /sdapi/v1/extra-single-image`.
pub(crate) async fn single(
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<EnlargedImage>, WebUiError> {
    let form: ExtrasForm = body.parse()?;
    let upscalers = form.upscalers(&app)?;
    let image = form.enlarged(&app, &upscalers, "image", &form.image).await?;
    Ok(Json(EnlargedImage { html_info: String::new(), image }))
}

/// `POST /sdapi/v1/extra-batch-images`.
pub(crate) async fn batch(
    State(app): State<Arc<App>>,
    body: JsonObject,
) -> Result<Json<EnlargedImages>, WebUiError> {
    let form: ExtrasForm = body.parse()?;
    let upscalers = form.upscalers(&app)?;
    let most = app.options.limits.images;
    if !(1..=most).contains(&form.images.len()) {
        return Err(
            ServeError::expected("imageList", format!("1 to {most} images"), form.images.len()).into()
        );
    }
    let mut images = Vec::new();
    for NamedImage { data, .. } in &form.images {
        images.push(form.enlarged(&app, &upscalers, "imageList", data).await?);
    }
    Ok(Json(EnlargedImages { html_info: String::new(), images }))
}

/// The filter or model that enlarges an image.
#[derive(Debug, Clone, PartialEq)]
enum Upscaler {
    Filter(Interpolation),
    /// A model of the server.
    Model(String),
}

impl Upscaler {
    /// None for `None`.
    fn find(app: &App, name: &str) -> Result<Option<Self>, WebUiError> {
        Ok(Some(match name {
            "" | "None" => return Ok(None),
            "Lanczos" => Self::Filter(Interpolation::Lanczos),
            "Nearest" => Self::Filter(Interpolation::Nearest),
            _ => {
                let models = app.models.infos().iter();
                let models = models.filter(|info| info.conditioning == ConditionedOn::LowResolution);
                let names: Vec<_> = models.map(|info| info.name.as_str()).collect();
                if !names.contains(&name) {
                    let known = [&["None", "Lanczos", "Nearest"], &names[..]].concat();
                    return Err(WebUiError::unknown("Upscaler", &known, name));
                }
                Self::Model(name.to_owned())
            }
        }))
    }

    /// The image at a size.
    async fn enlarge(
        &self,
        app: &Arc<App>,
        image: &RgbImage,
        size: [u32; 2],
    ) -> Result<RgbImage, ServeError> {
        let (interpolation, image) = match self {
            Self::Filter(interpolation) => (*interpolation, image.clone()),
            Self::Model(name) => (Interpolation::Lanczos, sampled(app, name, image.clone()).await?),
        };
        let [width, height] = size;
        app.images.run(move || Ok(resize(&image, width, height, interpolation))).await
    }
}

/// An image enlarged by a model.
async fn sampled(app: &Arc<App>, model: &str, image: RgbImage) -> Result<RgbImage, ServeError> {
    let png = app.images.run(move || Ok(images::png(&DynamicImage::from(image), &[]))).await?;
    let request = GenerationRequest {
        model: Some(model.to_owned()),
        image: Some(encode(&png)),
        ..GenerationRequest::default()
    };
    let job = app.submit(request, ORIGIN, None).await?;
    let status = app.wait(&job).await?;
    if status.state != JobState::Done {
        let unknown = || ServeError::new(ErrorKind::Internal, "the job failed");
        return Err(status.error.unwrap_or_else(unknown));
    }
    let png = app.png(&job.id, 0).await?;
    let decoded = images::decode(&png);
    decoded.map_err(|error| ServeError::new(ErrorKind::Internal, error.to_string()))
}

impl ExtrasForm {
    /// The upscalers with their shares; none leaves the image.
    fn upscalers(&self, app: &App) -> Result<Vec<(Upscaler, f64)>, WebUiError> {
        for (field, value) in [
            ("gfpgan_visibility", self.gfpgan_visibility),
            ("codeformer_visibility", self.codeformer_visibility),
        ] {
            if value != 0. {
                return Err(WebUiError::invalid(field, "expected 0, since there is no model of faces"));
            }
        }
        let share = self.extras_upscaler_2_visibility;
        if !(0. ..=1.).contains(&share) {
            return Err(
                ServeError::expected("extras_upscaler_2_visibility", "a number in [0, 1]", share).into()
            );
        }
        let (first, second) =
            (Upscaler::find(app, &self.upscaler_1)?, Upscaler::find(app, &self.upscaler_2)?);
        Ok(match (first, second) {
            (Some(first), Some(second)) if share > 0. => vec![(first, 1. - share), (second, share)],
            (Some(first), _) => vec![(first, 1.)],
            (None, _) => Vec::new(),
        })
    }

    /// Base64 of a PNG, with the parameters of the given image.
    async fn enlarged(
        &self,
        app: &Arc<App>,
        upscalers: &[(Upscaler, f64)],
        field: &'static str,
        text: &str,
    ) -> Result<String, WebUiError> {
        let (limits, text) = (app.options.limits.clone(), text.to_owned());
        let decoded = app.images.run(move || {
            let bytes = check_image(field, decode(field, &text)?, &limits)?;
            let image = images::decode(&bytes)
                .map_err(|error| ServeError::invalid(field, format!("expected a readable image: {error}")))?;
            Ok((image, texts(&bytes).0))
        });
        let (image, info) = decoded.await?;
        if upscalers.is_empty() {
            return Ok(app.images.run(move || Ok(written(image, &info))).await?);
        }
        let (size, cut) = self.sizes(&image, &app.options.limits)?;
        let mut each = Vec::new();
        for (upscaler, share) in upscalers {
            each.push((upscaler.enlarge(app, &image, size).await?, *share));
        }
        let written = app.images.run(move || {
            let large = mixed(each);
            let [left, top] = [0, 1].map(|axis| (size[axis] - cut[axis]) / 2);
            let result = image::imageops::crop_imm(&large, left, top, cut[0], cut[1]).to_image();
            Ok(written(result, &info))
        });
        Ok(written.await?)
    }

    /// The size that the image is enlarged to, and that it is cropped to.
    fn sizes(&self, image: &RgbImage, limits: &Limits) -> Result<([u32; 2], [u32; 2]), WebUiError> {
        let from = [image.width(), image.height()].map(f64::from);
        let wanted = [self.upscaling_resize_w, self.upscaling_resize_h];
        let scale = match self.resize_mode {
            0 => self.upscaling_resize,
            1 => (wanted[0] as f64 / from[0]).max(wanted[1] as f64 / from[1]),
            other => return Err(ServeError::expected("resize_mode", "0 or 1", other).into()),
        };
        let pixels = from[0] * from[1] * scale * scale;
        let positive = scale > 0. && (self.resize_mode == 0 || wanted.iter().all(|side| *side > 0));
        if !(positive && pixels <= limits.pixels as f64) {
            let message = format!("expected a positive size of at most {} pixels", limits.pixels);
            return Err(WebUiError::invalid("upscaling_resize", message));
        }
        let size = from.map(|side| ((side * scale).round() as u32).max(1));
        let cut = if self.resize_mode == 1 && self.upscaling_crop {
            [0, 1].map(|axis| size[axis].min(wanted[axis] as u32))
        } else {
            size
        };
        Ok((size, cut))
    }
}

/// The sum of images times their shares, which sum to 1.
fn mixed(mut each: Vec<(RgbImage, f64)>) -> RgbImage {
    let (mut sum, _) = each.remove(0);
    for (over, share) in each {
        for (under, over) in sum.iter_mut().zip(over.iter()) {
            *under = (f64::from(*under) * (1. - share) + f64::from(*over) * share).round() as u8;
        }
    }
    sum
}

fn written(image: RgbImage, parameters: &str) -> String {
    let texts = [("parameters", parameters)];
    let texts = if parameters.is_empty() { &texts[..0] } else { &texts[..] };
    encode(&images::png(&DynamicImage::from(image), texts))
}
