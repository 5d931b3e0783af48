//! The fields of a request, and what they say about the job and the answer.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use utoipa::ToSchema;

use crate::answers::parse;
use crate::check::LONGEST_NAME;
use crate::encoding::AnswerFormat;
use crate::request::GenerationRequest;
use crate::{ErrorKind, ServeError};

/// The most images of a request.
const IMAGES: usize = 10;
/// The most partial images of a stream.
const PARTIAL_IMAGES: usize = 3;

/// The place of an image of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    /// In the answer.
    #[default]
    B64Json,
    /// At a URL of this server.
    Url,
}

/// A request of OpenAI's images API. Other keys are accepted and have no effect.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct ImageFields {
    /// The text; required, except for variations, which have none.
    pub(super) prompt: Option<String>,
    /// A model of this server; its default where absent.
    model: Option<String>,
    /// The number of images, 1 to 10.
    n: Option<usize>,
    /// `WIDTHxHEIGHT`, or `auto`: the model's own, or that of the given image.
    size: Option<String>,
    /// `b64_json` where absent.
    response_format: Option<ResponseFormat>,
    /// `png` where absent.
    output_format: Option<AnswerFormat>,
    /// The quality of JPEG, 0 to 100. WebP is lossless.
    output_compression: Option<u32>,
    /// True for server-sent events.
    stream: Option<bool>,
    /// The most images of unfinished steps in a stream, 0 to 3.
    partial_images: Option<usize>,
    /// Repeated in the answer; `steps` says what it would.
    quality: Option<String>,
    /// The share of an edited image without a mask that stays: `high` is a strength of 0.5, `low` the default.
    input_fidelity: Option<String>,
    /// The text to guide away from.
    negative_prompt: Option<String>,
    /// The seed of the first image; -1 is a random one.
    #[serde(alias = "rng_seed")]
    #[schema(value_type = Option<i64>)]
    seed: Option<Number>,
    /// The number of steps; also `num_inference_steps`.
    #[serde(alias = "num_inference_steps")]
    steps: Option<usize>,
    /// The scale of classifier-free guidance; also `cfg_scale`.
    #[serde(alias = "cfg_scale")]
    guidance_scale: Option<f64>,
    /// The sampler.
    sampler: Option<String>,
    /// The spacing of the timesteps.
    scheduler: Option<String>,
    /// The denoising strength of a given image, 0 to 1.
    strength: Option<f64>,
}

/// The form of an answer.
#[derive(Debug, Clone)]
pub(crate) struct AnswerForm {
    pub(super) response_format: ResponseFormat,
    pub(super) format: AnswerFormat,
    /// The quality of JPEG.
    pub(super) compression: u8,
    pub(super) stream: bool,
    pub(super) partial_images: usize,
    pub(super) quality: Option<String>,
}

impl ImageFields {
    /// The fields of an object, of which null is as absent.
    ///
    /// # Errors
    /// For a value of another type, with its key.
    pub(super) fn parse(mut object: Map<String, Value>) -> Result<Self, ServeError> {
        object.retain(|_, value| !value.is_null());
        parse(Value::Object(object))
    }

    /// The form of the answer.
    ///
    /// # Errors
    /// For a field out of range.
    pub(super) fn form(&self) -> Result<AnswerForm, ServeError> {
        let compression = self.output_compression.unwrap_or(100);
        if compression > 100 {
            return Err(ServeError::expected("output_compression", "0 to 100", compression));
        }
        let partial_images = self.partial_images.unwrap_or(0);
        if partial_images > PARTIAL_IMAGES {
            return Err(ServeError::expected(
                "partial_images",
                format!("0 to {PARTIAL_IMAGES}"),
                partial_images,
            ));
        }
        if self.quality.as_ref().is_some_and(|word| word.len() > LONGEST_NAME) {
            return Err(ServeError::invalid(
                "quality",
                format!("expected at most {LONGEST_NAME} characters"),
            ));
        }
        let response_format = self.response_format.unwrap_or_default();
        let stream = self.stream.unwrap_or(false);
        if stream && response_format == ResponseFormat::Url {
            return Err(ServeError::expected("response_format", "b64_json with stream", "url"));
        }
        Ok(AnswerForm {
            response_format,
            format: self.output_format.unwrap_or_default(),
            compression: compression as u8,
            stream,
            partial_images,
            quality: self.quality.clone(),
        })
    }

    /// The job of a text.
    ///
    /// # Errors
    /// Without a prompt, and for a field out of range.
    pub(super) fn request(self) -> Result<GenerationRequest, ServeError> {
        if self.prompt.is_none() {
            return Err(ServeError::expected("prompt", "a text", "none"));
        }
        let n = self.n.unwrap_or(1);
        if !(1..=IMAGES).contains(&n) {
            return Err(ServeError::expected("n", format!("1 to {IMAGES}"), n));
        }
        let size = self.size.as_deref().map(parse_size).transpose()?.flatten();
        let (width, height) = size.unzip();
        Ok(GenerationRequest {
            // Clients with an empty setting send an empty name.
            model: self.model.filter(|name| !name.is_empty()),
            prompt: self.prompt.unwrap_or_default(),
            negative_prompt: self.negative_prompt.unwrap_or_default(),
            seed: self.seed.as_ref().map(parse_seed).transpose()?.flatten(),
            n,
            height,
            width,
            steps: self.steps,
            sampler: self.sampler,
            spacing: self.scheduler,
            guidance_scale: self.guidance_scale,
            strength: self.strength,
            ..GenerationRequest::default()
        })
    }

    /// The strength that `input_fidelity` names.
    ///
    /// # Errors
    /// For another word than `high` and `low`.
    pub(super) fn fidelity(&self) -> Result<Option<f64>, ServeError> {
        match self.input_fidelity.as_deref() {
            None | Some("low") => Ok(None),
            Some("high") => Ok(Some(0.5)),
            Some(word) => Err(ServeError::expected("input_fidelity", "high or low", word)),
        }
    }
}

/// Width and height of `WIDTHxHEIGHT`; none for `auto`.
fn parse_size(text: &str) -> Result<Option<(i64, i64)>, ServeError> {
    if text == "auto" {
        return Ok(None);
    }
    let sides =
        text.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    sides.map(Some).ok_or_else(|| ServeError::expected("size", "WIDTHxHEIGHT or auto", text))
}

/// A seed; none for -1.
fn parse_seed(number: &Number) -> Result<Option<u64>, ServeError> {
    match (number.as_u64(), number.as_i64()) {
        (Some(seed), _) => Ok(Some(seed)),
        (None, Some(-1)) => Ok(None),
        _ => Err(ServeError::expected("seed", "an integer from -1 to 2^64 - 1", number)),
    }
}

/// An error of a job with the names that this API has for its fields.
pub(super) fn renamed(error: ServeError) -> ServeError {
    if error.kind != ErrorKind::Invalid {
        return error;
    }
    match error.field.as_deref() {
        Some("width" | "height" | "height and width") => ServeError::invalid("size", error.message),
        Some("spacing") => ServeError::invalid(
            "scheduler",
            error.message.strip_prefix("spacing: ").unwrap_or(&error.message),
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(value: Value) -> Result<GenerationRequest, ServeError> {
        let Value::Object(object) = value else { panic!("an object") };
        ImageFields::parse(object)?.request()
    }

    #[test]
    fn keys_of_other_servers_are_read() {
        let read = request(serde_json::json!({
            "prompt": "a", "model": "", "num_inference_steps": 3, "steps": null, "cfg_scale": 2, "rng_seed": u64::MAX,
            "scheduler": "karras", "size": "64x32", "user": 5, "n": null,
        }))
        .unwrap();
        assert_eq!((read.model, read.steps, read.guidance_scale), (None, Some(3), Some(2.)));
        assert_eq!((read.seed, read.spacing.as_deref()), (Some(u64::MAX), Some("karras")));
        assert_eq!((read.width, read.height, read.n), (Some(64), Some(32), 1));
        assert_eq!(
            request(serde_json::json!({"prompt": "", "seed": -1, "size": "auto"})).unwrap().seed,
            None
        );
    }

    #[test]
    fn wrong_values_are_refused_with_their_key() {
        for (value, message) in [
            (serde_json::json!({}), "prompt: expected a text, got none"),
            (serde_json::json!({"prompt": 1}), "prompt: invalid type: integer `1`, expected a string"),
            (
                serde_json::json!({"prompt": "", "seed": -2}),
                "seed: expected an integer from -1 to 2^64 - 1, got -2",
            ),
            (
                serde_json::json!({"prompt": "", "seed": 0.5}),
                "seed: expected an integer from -1 to 2^64 - 1, got 0.5",
            ),
            (serde_json::json!({"prompt": "", "n": 0}), "n: expected 1 to 10, got 0"),
            (serde_json::json!({"prompt": "", "size": "64"}), "size: expected WIDTHxHEIGHT or auto, got 64"),
        ] {
            assert_eq!(request(value).unwrap_err().message, message);
        }
    }
}
