//! Parameters of images, read back.

use axum::Json;
use axum::body::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use crate::encoding;
use crate::parameters::{Found, request_of};
use crate::submit::blocking;
use crate::{ErrorKind, ServeError};

/// The parameters in an image.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadParameters {
    /// The text, as it is.
    text: String,
    #[serde(flatten)]
    found: Found,
}

/// `POST /v1/parameters`: the settings in a PNG, the body, of this program or of AUTOMATIC1111's web UI.
pub(crate) async fn read(body: Bytes) -> Result<Json<ReadParameters>, ServeError> {
    blocking(move || {
        let text = encoding::parameters(&body)
            .ok_or_else(|| ServeError::new(ErrorKind::Invalid, "expected a PNG with a text `parameters`"))?;
        let found = request_of(&text).ok_or_else(|| {
            ServeError::new(ErrorKind::Invalid, "expected a line of `Steps: …` in the text `parameters`")
        })?;
        Ok(Json(ReadParameters { text, found }))
    })
    .await
}
