//! `png-info`: the settings in an image.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use image::{ImageDecoder, ImageReader};
use ldm::PngParameters;
use ldm_core::PngTexts;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::body::{JsonObject, WebUiError};
use super::names::{SCHEDULERS, theirs};
use crate::base64_image::decode;
use crate::check::check_image;
use crate::server::App;

/// An image to read.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PngInfoForm {
    /// Base64 or a `data:` URL.
    #[serde(default)]
    image: String,
}

/// The texts of an image.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct PngInfo {
    /// The text `parameters`.
    info: String,
    /// Other texts.
    items: BTreeMap<String, String>,
    /// The settings of `info`.
    #[schema(value_type = Object)]
    parameters: Map<String, Value>,
}

/// `POST /sdapi/v1/png-info`.
pub(crate) async fn read(State(app): State<Arc<App>>, body: JsonObject) -> Result<Json<PngInfo>, WebUiError> {
    let form: PngInfoForm = body.parse()?;
    if form.image.is_empty() {
        return Ok(Json(PngInfo::default()));
    }
    let limits = app.options.limits.clone();
    let found = app.images.run(move || {
        let bytes = check_image("image", decode("image", &form.image)?, &limits)?;
        let (info, items) = texts(&bytes);
        let parameters = PngParameters::parse(&info).map(|parsed| settings(&parsed)).unwrap_or_default();
        Ok(PngInfo { info, items, parameters })
    });
    Ok(Json(found.await?))
}

/// The text `parameters` of an image, and its other texts.
pub(crate) fn texts(bytes: &[u8]) -> (String, BTreeMap<String, String>) {
    if let Ok(mut found) = PngTexts::parse(bytes, "image") {
        let info = found.texts.remove("parameters").unwrap_or_default();
        return (info, found.texts);
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let decoder = reader.ok().and_then(|reader| reader.into_decoder().ok());
    let exif = decoder.and_then(|mut decoder| decoder.exif_metadata().ok().flatten());
    (exif.and_then(|exif| user_comment(&exif)).unwrap_or_default(), BTreeMap::new())
}

/// The UserComment of EXIF data (Exif 2.3, 4.6.5); texts of two bytes a letter are big-endian, as the web UI writes them.
fn user_comment(exif: &[u8]) -> Option<String> {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let big = exif.starts_with(b"MM");
    let short = |at: usize| {
        let bytes = *exif.get(at..)?.first_chunk::<2>()?;
        Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes = *exif.get(at..)?.first_chunk::<4>()?;
        let value = if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        usize::try_from(value).ok()
    };
    // The count and the value, or its place, of a tag of the directory at `start`.
    let tag = |start: usize, tag: u16| {
        let entries = (0..usize::from(short(start)?)).map(|index| start + 2 + 12 * index);
        let entry = entries.into_iter().find(|entry| short(*entry) == Some(tag))?;
        Some((long(entry + 4)?, long(entry + 8)?))
    };
    let (_, directory) = tag(long(4)?, 0x8769)?;
    let (count, start) = tag(directory, 0x9286)?;
    let (code, text) = exif.get(start..start.checked_add(count)?)?.split_at_checked(8)?;
    if code == b"UNICODE\0" {
        let units: Vec<_> = text.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        return Some(String::from_utf16_lossy(&units));
    }
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The settings as the web UI's own parser has them: sizes in two, and what is absent at its default.
fn settings(parsed: &PngParameters) -> Map<String, Value> {
    let mut all = Map::new();
    all.insert("Prompt".to_owned(), json!(parsed.prompt.clone().unwrap_or_default()));
    all.insert("Negative prompt".to_owned(), json!(parsed.negative));
    for (key, value) in &parsed.fields {
        let sides = value.split_once('x').filter(|(width, height)| {
            let number = |side: &str| !side.is_empty() && side.bytes().all(|byte| byte.is_ascii_digit());
            number(width) && number(height)
        });
        let spacing = || SCHEDULERS.iter().find(|scheduler| scheduler.spacing == Some(value));
        match sides {
            // Under their names, so that clients can send them back.
            None if key == "Sampler" => {
                all.insert(key.clone(), json!(theirs(value)));
            }
            None if key == "Spacing" => {
                let label = spacing().map_or(value.as_str(), |scheduler| scheduler.label);
                all.insert("Schedule type".to_owned(), json!(label));
            }
            Some((width, height)) => {
                all.insert(format!("{key}-1"), json!(width));
                all.insert(format!("{key}-2"), json!(height));
            }
            None => {
                all.insert(key.clone(), json!(value));
            }
        }
    }
    for (key, value) in
        [("Clip skip", "1"), ("Schedule type", "Automatic"), ("Hires resize-1", "0"), ("Hires resize-2", "0")]
    {
        all.entry(key).or_insert_with(|| json!(value));
    }
    all
}
