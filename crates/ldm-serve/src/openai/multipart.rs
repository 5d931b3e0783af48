//! Forms with files.

use axum::extract::multipart::{Multipart, MultipartError, MultipartRejection};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::fields::ImageFields;
use crate::{ErrorKind, ServeError};

/// Fields that are not texts.
const TYPED: [&str; 11] = [
    "n",
    "output_compression",
    "partial_images",
    "stream",
    "seed",
    "rng_seed",
    "steps",
    "num_inference_steps",
    "guidance_scale",
    "cfg_scale",
    "strength",
];

/// The most fields of a form.
const MOST_FIELDS: usize = 100;

/// A form with an image.
#[derive(Debug)]
pub(super) struct UploadForm {
    pub(super) image: Vec<u8>,
    pub(super) mask: Option<Vec<u8>>,
    pub(super) fields: ImageFields,
}

impl UploadForm {
    /// Reads a form.
    ///
    /// # Errors
    /// For a body that is none, without an image or with several, and for values of another type.
    pub(super) async fn read(form: Result<Multipart, MultipartRejection>) -> Result<Self, ServeError> {
        let mut form = form.map_err(|rejection| {
            ServeError::new(
                ErrorKind::Invalid,
                format!("expected multipart/form-data: {}", rejection.body_text()),
            )
        })?;
        let (mut images, mut masks, mut object) = (Vec::new(), Vec::new(), Map::new());
        while let Some(field) = form.next_field().await.map_err(|error| broken(&error))? {
            if images.len() + masks.len() + object.len() >= MOST_FIELDS {
                let message = format!("expected at most {MOST_FIELDS} fields in a form");
                return Err(ServeError::new(ErrorKind::Invalid, message));
            }
            let name = field.name().unwrap_or_default().to_owned();
            let bytes = field.bytes().await.map_err(|error| broken(&error))?;
            match name.as_str() {
                "image" | "image[]" | "image[0]" => images.push(bytes),
                "mask" => masks.push(bytes),
                _ => {
                    let text = String::from_utf8(bytes.into())
                        .map_err(|_| ServeError::expected(&name, "a text in UTF-8", "other bytes"))?;
                    // An empty field of a form says nothing, except as a text.
                    if text.is_empty() && name != "prompt" {
                        continue;
                    }
                    if object.insert(name.clone(), typed(&name, text)).is_some() {
                        return Err(ServeError::expected(&name, "one value", "several"));
                    }
                }
            }
        }
        if masks.len() > 1 {
            return Err(ServeError::expected("mask", "one mask", masks.len()));
        }
        let count = images.len();
        let image = images.pop().filter(|_| count == 1);
        Ok(Self {
            image: image.ok_or_else(|| ServeError::expected("image", "one image", count))?.into(),
            mask: masks.pop().map(Vec::from),
            fields: ImageFields::parse(object)?,
        })
    }
}

/// The value of a field: a number or a boolean where it is one and should be, so that the error of another names its type.
fn typed(name: &str, text: String) -> Value {
    let plain = if TYPED.contains(&name) { serde_json::from_str(text.trim()).ok() } else { None };
    let plain = plain.filter(|value: &Value| value.is_number() || value.is_boolean());
    plain.unwrap_or(Value::String(text))
}

fn broken(error: &MultipartError) -> ServeError {
    let large = error.status() == StatusCode::PAYLOAD_TOO_LARGE;
    let kind = if large { ErrorKind::TooLarge } else { ErrorKind::Invalid };
    ServeError::new(kind, format!("expected a complete multipart/form-data body: {}", error.body_text()))
}
