//! Generations, edits and variations.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::http::header::HOST;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use ldm_core::image::dimensions;

use super::fields::{AnswerForm, ImageFields, renamed};
use super::mask::white_where_transparent;
use super::multipart::UploadForm;
use super::{answer, stream};
use crate::answers::JsonBody;
use crate::bodies::BodyRoom;
use crate::check::check_image;
use crate::json::JsonMap;
use crate::request::GenerationRequest;
use crate::server::App;
use crate::{ServeError, base64_image};

/// `POST /v1/images/generations`.
pub(super) async fn generations(
    State(app): State<Arc<App>>,
    room: BodyRoom,
    headers: HeaderMap,
    JsonBody(JsonMap(object)): JsonBody<JsonMap>,
) -> Result<Response, ServeError> {
    let fields = ImageFields::parse(object)?;
    let form = fields.form()?;
    respond(&app, &room, &headers, fields.request()?, form, "image_generation").await
}

/// `POST /v1/images/edits`: an image, sampled anew where its mask is transparent, or all of it from some noise.
pub(super) async fn edits(
    State(app): State<Arc<App>>,
    room: BodyRoom,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, ServeError> {
    let UploadForm { image, mask, fields } = UploadForm::read(form).await?;
    let (form, fidelity) = (fields.form()?, fields.fidelity()?);
    let mut request = fields.request()?;
    if mask.is_none() {
        request.strength = request.strength.or(fidelity);
    }
    let request = with_files(&app, request, image, mask).await?;
    respond(&app, &room, &headers, request, form, "image_edit").await
}

/// `POST /v1/images/variations`: an image sampled anew from some noise, without a text.
pub(super) async fn variations(
    State(app): State<Arc<App>>,
    room: BodyRoom,
    headers: HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, ServeError> {
    let UploadForm { image, mut fields, .. } = UploadForm::read(form).await?;
    fields.prompt = Some(String::new());
    let form = fields.form()?;
    let request = with_files(&app, fields.request()?, image, None).await?;
    respond(&app, &room, &headers, request, form, "image_edit").await
}

/// The request with its image and its mask.
async fn with_files(
    app: &Arc<App>,
    mut request: GenerationRequest,
    image: Vec<u8>,
    mask: Option<Vec<u8>>,
) -> Result<GenerationRequest, ServeError> {
    let limits = app.options.limits.clone();
    let prepared = app.images.run(move || {
        let limits = &limits;
        let image = check_image("image", image, limits)?;
        if let Some(mask) = mask {
            let mask = check_image("mask", mask, limits)?;
            let sides = dimensions(&image).map_err(|error| ServeError::invalid("image", error))?;
            let side = |side: i64| u32::try_from(side).ok().filter(|side| (1..=1 << 15).contains(side));
            let size = request.width.and_then(side).zip(request.height.and_then(side));
            // A larger one is refused with the request.
            let size = size.filter(|(width, height)| u64::from(*width) * u64::from(*height) <= limits.pixels);
            let mask = white_where_transparent(&mask, sides, size.map(|(width, height)| [width, height]))?;
            request.mask = Some(base64_image::encode(&mask));
        }
        request.image = Some(base64_image::encode(&image));
        Ok(request)
    });
    prepared.await
}

/// Submits a job and answers with its end or, as a stream, with its events. The job goes on without the client.
async fn respond(
    app: &Arc<App>,
    room: &BodyRoom,
    headers: &HeaderMap,
    request: GenerationRequest,
    form: AnswerForm,
    kind: &'static str,
) -> Result<Response, ServeError> {
    let permit = app.waits.answer()?;
    let job = app.submit(request, "openai", None).await.map_err(renamed)?;
    room.keep(0)?;
    // OpenAI's clients show it, and `/v1/jobs/{id}` knows it.
    let id = HeaderValue::from_str(&job.id).expect("hexadecimal");
    let mut response = if form.stream {
        stream::events(Arc::clone(app), job, form, kind, permit).into_response()
    } else {
        match answer::wait(app, &job, form, &base(app, headers)).await {
            Ok(answer) => Json(answer).into_response(),
            Err(error) => error.into_response(),
        }
    };
    response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    Ok(response)
}

/// The URL of this server as the client has it.
fn base(app: &App, headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.map_or_else(|| app.address.to_string(), str::to_owned);
    let secure = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    format!("http{}://{host}", if secure { "s" } else { "" })
}
