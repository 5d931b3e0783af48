//! Answers of ended jobs.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::fields::{AnswerForm, ResponseFormat, renamed};
use crate::encoding::AnswerFormat;
use crate::job::{Job, JobImage, JobState, Status, now};
use crate::server::App;
use crate::{ErrorKind, ServeError, base64_image};

/// Tokens, all zero: diffusion models count none, but OpenAI's clients expect the keys.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct TokenUsage {
    input_tokens: u64,
    input_tokens_details: TokenDetails,
    output_tokens: u64,
    total_tokens: u64,
}

/// Tokens by kind.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct TokenDetails {
    image_tokens: u64,
    text_tokens: u64,
}

/// The images of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImagesAnswer {
    /// Seconds since 1970.
    created: u64,
    data: Vec<AnsweredImage>,
    /// `opaque`.
    background: &'static str,
    output_format: AnswerFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<String>,
    /// `WIDTHxHEIGHT`.
    size: String,
    usage: TokenUsage,
}

/// An image, by one of its keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnsweredImage {
    /// Base64 of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    b64_json: Option<String>,
    /// A URL of this server.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// The seed, with which the same request makes the same image again.
    seed: u64,
}

/// Seconds since 1970.
pub(super) fn seconds() -> u64 {
    now() / 1000
}

/// The size of an image in an answer.
pub(super) fn size(image: &JobImage) -> String {
    format!("{}x{}", image.width, image.height)
}

/// Why a job that has ended has not all its images.
pub(super) fn failure(status: &Status) -> Option<ServeError> {
    if status.state == JobState::Done {
        return None;
    }
    let unknown = || ServeError::new(ErrorKind::Internal, "the job failed");
    Some(renamed(status.error.clone().unwrap_or_else(unknown)))
}

/// Base64 of an image of a job in the format of the answer.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn encoded(
    app: &App,
    id: &str,
    index: usize,
    form: &AnswerForm,
) -> Result<String, ServeError> {
    let png = app.png(id, index).await?;
    let (format, quality) = (form.format, form.compression);
    app.images.finish(move || Ok(base64_image::encode(&format.encode(png, quality)?))).await
}

/// The answer of a job, once it has ended. `base` is the server's URL.
///
/// # Errors
/// That of the job; when its images cannot be read.
pub(super) async fn wait(
    app: &Arc<App>,
    job: &Job,
    form: AnswerForm,
    base: &str,
) -> Result<ImagesAnswer, ServeError> {
    let mut status = app.wait(job).await?;
    if let Some(error) = failure(&status) {
        return Err(error);
    }
    status.images.sort_by_key(|image| image.index);
    let mut data = Vec::new();
    for image in &status.images {
        let (mut b64_json, mut url) = (None, None);
        match form.response_format {
            ResponseFormat::B64Json => b64_json = Some(encoded(app, &job.id, image.index, &form).await?),
            ResponseFormat::Url => {
                let query = if form.format == AnswerFormat::Png { "" } else { "?format=" };
                let format = if query.is_empty() { "" } else { form.format.extension() };
                url = Some(format!("{base}/v1/jobs/{}/images/{}{query}{format}", job.id, image.index));
            }
        }
        data.push(AnsweredImage { b64_json, url, seed: image.seed });
    }
    Ok(ImagesAnswer {
        created: seconds(),
        data,
        background: "opaque",
        output_format: form.format,
        quality: form.quality,
        size: status.images.first().map(size).unwrap_or_default(),
        usage: TokenUsage::default(),
    })
}
