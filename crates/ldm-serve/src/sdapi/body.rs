//! Bodies of requests, and errors.

use std::collections::HashSet;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::answers::{DeclaredType, declared, not_json, rejected};
use crate::json::JsonMap;
use crate::submit::blocking;
use crate::{ErrorKind, ServeError, answers};

/// An error of AUTOMATIC1111's API.
#[derive(Debug)]
pub(crate) enum WebUiError {
    /// That of a request or a job.
    Serve(ServeError),
    /// A body, or a field of one, of another type: 422.
    Validation {
        /// The field.
        field: Option<String>,
        /// The problem.
        message: String,
    },
    /// A script that the server does not have: 422.
    Script(String),
}

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
struct WebUiErrorBody<'a> {
    /// The kind of the error.
    error: String,
    /// One sentence.
    detail: &'a str,
    /// The field of the request, under the names of the job's own API.
    body: &'a str,
    /// The sentence again.
    errors: &'a str,
}

/// Fields of jobs under the names of this API.
const FIELDS: [(&str, &str); 15] = [
    ("guidance_scale", "cfg_scale"),
    ("n", "batch_size and n_iter"),
    ("sampler", "sampler_name"),
    ("spacing", "scheduler"),
    ("image", "init_images"),
    ("strength", "denoising_strength"),
    ("hires", "enable_hr"),
    ("hires.scale", "hr_scale"),
    ("hires.steps", "hr_second_pass_steps"),
    ("hires.strength", "denoising_strength"),
    ("variation", "subseed_strength"),
    ("variation.strength", "subseed_strength"),
    ("clip_skip", "CLIP_stop_at_last_layers"),
    ("class", "prompt"),
    ("model", "sd_model_checkpoint"),
];

/// An error in the form of this API.
pub(crate) fn error(error: &ServeError) -> Response {
    let field = error.field.as_deref().unwrap_or_default();
    let renamed = FIELDS
        .iter()
        .find(|(ours, _)| *ours == field)
        .and_then(|(ours, theirs)| Some(format!("{theirs}{}", error.message.strip_prefix(ours)?)));
    let detail = renamed.as_ref().unwrap_or(&error.message);
    let body = WebUiErrorBody { error: format!("{:?}", error.kind), detail, body: field, errors: detail };
    answers::with_status(error, json!(body))
}

impl From<ServeError> for WebUiError {
    fn from(error: ServeError) -> Self {
        Self::Serve(error)
    }
}

impl WebUiError {
    /// A field with an invalid value.
    pub(crate) fn invalid(field: &str, message: impl std::fmt::Display) -> Self {
        Self::Serve(ServeError::invalid(field, message))
    }

    /// A name that the server does not know: `Sampler not found: expected one of A, B, got C`.
    pub(crate) fn unknown(what: &str, known: &[&str], got: &str) -> Self {
        let got: String = got.chars().take(100).collect();
        let known = if known.is_empty() { "none".to_owned() } else { format!("one of {}", known.join(", ")) };
        let message = format!("{what} not found: expected {known}, got {got}");
        Self::Serve(ServeError::new(ErrorKind::NotFound, message))
    }
}

impl IntoResponse for WebUiError {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Serve(serve) => return error(&serve),
            Self::Validation { field, message } => {
                let place: Vec<_> = ["body".to_owned()].into_iter().chain(field).collect();
                (
                    StatusCode::UNPROCESSABLE_ENTITY,
                    json!({"detail": [{"loc": place, "msg": message, "type": "value_error"}]}),
                )
            }
            Self::Script(message) => {
                let body = WebUiErrorBody {
                    error: "Script".to_owned(),
                    detail: &message,
                    body: "",
                    errors: &message,
                };
                (StatusCode::UNPROCESSABLE_ENTITY, json!(body))
            }
        };
        (status, [("x-should-retry", "false")], Json(body)).into_response()
    }
}

/// A JSON object, without its nulls, which clients send for what they leave out.
#[derive(Debug)]
pub(crate) struct JsonObject(pub(crate) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for JsonObject {
    type Rejection = WebUiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, WebUiError> {
        // Some clients say nothing; what a page of another origin may send unasked is refused.
        if declared(request.headers()) == DeclaredType::Other {
            return Err(not_json().into());
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|error| rejected(&error))?;
        let parsed = blocking(move || Ok(serde_json::from_slice::<JsonMap>(&bytes))).await?;
        let JsonMap(mut map) = parsed.map_err(|error| WebUiError::Validation {
            field: None,
            message: format!("expected JSON: {error}"),
        })?;
        map.retain(|_, value| !value.is_null());
        Ok(Self(map))
    }
}

/// Integers that clients also send as texts and floats, as their language has them.
const INTEGERS: [&str; 24] = [
    "seed",
    "subseed",
    "seed_resize_from_h",
    "seed_resize_from_w",
    "batch_size",
    "n_iter",
    "steps",
    "width",
    "height",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
    "firstphase_width",
    "firstphase_height",
    "resize_mode",
    "mask_blur",
    "mask_blur_x",
    "mask_blur_y",
    "inpainting_fill",
    "inpaint_full_res_padding",
    "inpainting_mask_invert",
    "upscaling_resize_w",
    "upscaling_resize_h",
    "id_live_preview",
];

/// Flags that clients also send as 0 and 1, or texts.
const FLAGS: [&str; 12] = [
    "enable_hr",
    "restore_faces",
    "tiling",
    "inpaint_full_res",
    "include_init_images",
    "send_images",
    "save_images",
    "disable_extra_networks",
    "upscaling_crop",
    "upscale_first",
    "live_preview",
    "mask_round",
];

/// Numbers that clients also send as texts.
const NUMBERS: [&str; 10] = [
    "cfg_scale",
    "denoising_strength",
    "subseed_strength",
    "hr_scale",
    "eta",
    "upscaling_resize",
    "s_churn",
    "s_noise",
    "s_min_uncond",
    "initial_noise_multiplier",
];

impl JsonObject {
    /// The object as a type.
    ///
    /// # Errors
    /// [`WebUiError::Validation`] with the field.
    pub(crate) fn parse<T: DeserializeOwned>(self) -> Result<T, WebUiError> {
        let map = self.0.into_iter().map(|(key, value)| {
            let value = coerced(&key, value);
            (key, value)
        });
        serde_path_to_error::deserialize(Value::Object(map.collect())).map_err(|error| {
            let path = error.path().to_string();
            let field = (path != ".").then_some(path);
            WebUiError::Validation { field, message: error.into_inner().to_string() }
        })
    }

    /// The names of its fields.
    pub(crate) fn keys(&self) -> HashSet<String> {
        self.0.keys().cloned().collect()
    }

    /// Takes fields out.
    pub(crate) fn take(&mut self, keys: &[&str]) -> Self {
        Self(keys.iter().filter_map(|key| self.0.remove_entry(*key)).collect())
    }
}

/// All integers up to here are exact in a float.
const EXACT: f64 = 9_007_199_254_740_992.;

fn coerced(key: &str, value: Value) -> Value {
    let number = || match &value {
        Value::String(text) => text.trim().parse::<f64>().ok(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        other => other.as_f64(),
    };
    let changed = if INTEGERS.contains(&key) && !value.is_i64() {
        let whole = number().filter(|number| number.fract() == 0. && number.abs() <= EXACT);
        whole.map(|number| json!(number as i64))
    } else if FLAGS.contains(&key) && !value.is_boolean() {
        let text = value.as_str().unwrap_or_default().to_lowercase();
        match (text.as_str(), number()) {
            ("true", _) | (_, Some(1.)) => Some(json!(true)),
            ("false", _) | (_, Some(0.)) => Some(json!(false)),
            _ => None,
        }
    } else if NUMBERS.contains(&key) && value.is_string() {
        number().map(|number| json!(number))
    } else {
        None
    };
    changed.unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_as_their_types() {
        for (key, given, want) in [
            ("steps", json!("20"), json!(20)),
            ("steps", json!(20.0), json!(20)),
            ("steps", json!(20.5), json!(20.5)),
            ("steps", json!("many"), json!("many")),
            ("seed", json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_993_i64)),
            ("seed", json!(1e300), json!(1e300)),
            ("inpainting_mask_invert", json!(true), json!(1)),
            ("inpaint_full_res", json!(0), json!(false)),
            ("inpaint_full_res", json!("True"), json!(true)),
            ("inpaint_full_res", json!(2), json!(2)),
            ("cfg_scale", json!("7.5"), json!(7.5)),
            ("prompt", json!("7.5"), json!("7.5")),
        ] {
            assert_eq!(coerced(key, given.clone()), want, "{key}: {given}");
        }
    }
}
