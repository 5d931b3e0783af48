//! Parameters of images, read back.

use axum::Json;
use axum::body::Bytes;

use crate::encoding;
use crate::parameters::{Found, request_of};
use crate::submit::blocking;
use crate::{ErrorKind, ServeError};

/// `POST /v1/parameters`: the settings in a PNG, the body, of this program or of AUTOMATIC1111's web UI.
pub(crate) async fn read(body: Bytes) -> Result<Json<Found>, ServeError> {
    blocking(move || {
        let text = encoding::parameters(&body)
            .ok_or_else(|| ServeError::new(ErrorKind::Invalid, "expected a PNG with a text `parameters`"))?;
        request_of(&text).map(Json).ok_or_else(|| {
            ServeError::new(ErrorKind::Invalid, "expected a line of `Steps: …` in the text `parameters`")
        })
    })
    .await
}
