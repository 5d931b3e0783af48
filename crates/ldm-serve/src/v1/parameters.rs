//! Parameters of images, read back.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;

use crate::encoding;
use crate::parameters::{Found, request_of};
use crate::server::App;
use crate::{ErrorKind, ServeError};

/// `POST /v1/parameters`: the settings in a PNG, the body, of this program or of AUTOMATIC1111's web UI.
pub(crate) async fn read(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Found>, ServeError> {
    let found = app.images.run(move || {
        let text = encoding::parameters(&body)
            .ok_or_else(|| ServeError::new(ErrorKind::Invalid, "expected a PNG with a text `parameters`"))?;
        request_of(&text).map(Json).ok_or_else(|| {
            ServeError::new(ErrorKind::Invalid, "expected a line of `Steps: …` in the text `parameters`")
        })
    });
    found.await
}
