//! Options: what clients set for all requests, and what a request overrides for itself.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::body::{JsonObject, WebUiError};
use crate::encoding::AnswerFormat;
use crate::models::{ModelInfo, Models};
use crate::server::App;

/// The options that clients have set, until the server stops.
#[derive(Debug, Default)]
pub(crate) struct SdapiState {
    set: Mutex<Map<String, Value>>,
    /// Tasks that have ended, the newest last.
    ended: Mutex<VecDeque<String>>,
}

/// Ended tasks that are remembered.
const REMEMBERED: usize = 64;

/// Options of a request.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The model; that of the server where none.
    pub(crate) model: Option<String>,
    pub(crate) clip_skip: u32,
    pub(crate) format: AnswerFormat,
    /// Of JPEG.
    pub(crate) quality: u8,
    /// True where previews are wanted.
    pub(crate) previews: bool,
}

impl SdapiState {
    fn set(&self) -> MutexGuard<'_, Map<String, Value>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that a task has ended.
    pub(crate) fn end(&self, task: &str) {
        let mut ended = self.ended();
        if ended.len() == REMEMBERED {
            ended.pop_front();
        }
        ended.push_back(task.to_owned());
    }

    /// True for a task that has ended lately.
    pub(crate) fn has_ended(&self, task: &str) -> bool {
        self.ended().iter().any(|ended| ended == task)
    }

    /// The options, with those of a request.
    ///
    /// # Errors
    /// For values that are not possible.
    pub(crate) fn settings(
        &self,
        models: &Models,
        overridden: &Map<String, Value>,
    ) -> Result<Settings, WebUiError> {
        let mut all = self.set().clone();
        for (key, value) in overridden {
            if let Some(value) = checked(models, key, value)? {
                all.insert(key.clone(), value);
            }
        }
        let number = |key: &str, default| all.get(key).and_then(Value::as_i64).unwrap_or(default);
        let on = all.get("live_previews_enable").and_then(Value::as_bool).unwrap_or(true);
        Ok(Settings {
            model: all.get("sd_model_checkpoint").and_then(Value::as_str).map(str::to_owned),
            clip_skip: u32::try_from(number("CLIP_stop_at_last_layers", 1)).unwrap_or(1),
            format: format(all.get("samples_format").and_then(Value::as_str).unwrap_or("png"))
                .unwrap_or_default(),
            quality: u8::try_from(number("jpeg_quality", 80)).unwrap_or(80),
            previews: on && number("show_progress_every_n_steps", 10) > 0,
        })
    }
}

/// Options with their defaults, apart from the model.
fn defaults() -> Map<String, Value> {
    let Value::Object(map) = json!({
        "samples_format": "png",
        "jpeg_quality": 80,
        "sd_checkpoint_hash": "",
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "show_progress_every_n_steps": 10,
        "live_previews_enable": true,
        "live_previews_image_format": "png",
        "live_preview_refresh_period": 1000,
    }) else {
        unreachable!("an object")
    };
    map
}

/// `GET /sdapi/v1/options`.
pub(crate) async fn get(State(app): State<Arc<App>>) -> Json<Value> {
    let mut all = defaults();
    all.extend(app.sdapi.set().clone());
    let title = app.models.find(None).map(title).unwrap_or_default();
    all.insert("sd_model_checkpoint".to_owned(), json!(title));
    Json(Value::Object(all))
}

/// `POST /sdapi/v1/options`: any of them; others are ignored, as all that `GET` gives and that cannot be set.
pub(crate) async fn set(
    State(app): State<Arc<App>>,
    JsonObject(body): JsonObject,
) -> Result<Json<Value>, WebUiError> {
    let mut changed = Map::new();
    for (key, value) in &body {
        if let Some(value) = checked(&app.models, key, value)? {
            changed.insert(key.clone(), value);
        }
    }
    if let Some(model) = changed.remove("sd_model_checkpoint")
        && let Some(name) = model.as_str()
    {
        app.models.set_default(name)?;
    }
    app.sdapi.set().extend(changed);
    Ok(Json(Value::Null))
}

/// The value of an option to keep; none for one without effect.
fn checked(models: &Models, key: &str, value: &Value) -> Result<Option<Value>, WebUiError> {
    let wrong = |expected: &str| {
        let got: String = value.to_string().chars().take(100).collect();
        WebUiError::invalid(key, format!("expected {expected}, got {got}"))
    };
    let whole = |low: i64, high: i64| {
        let number =
            value.as_f64().or_else(|| value.as_str()?.parse().ok()).filter(|number| number.fract() == 0.);
        let number = number.filter(|number| (low as f64..=high as f64).contains(number));
        number.map(|number| json!(number as i64)).ok_or_else(|| wrong(&format!("{low} to {high}")))
    };
    let text = || value.as_str().ok_or_else(|| wrong("a text"));
    match key {
        "sd_model_checkpoint" => match text()? {
            "" => Ok(None),
            name => Ok(Some(json!(model(models, name)?.name))),
        },
        "sd_vae" => match text()? {
            "" | "Automatic" | "None" => Ok(None),
            name => Err(WebUiError::unknown("VAE", &["Automatic", "None"], name)),
        },
        "samples_format" => {
            format(text()?).map(|_| Some(value.clone())).ok_or_else(|| wrong("png, jpg or webp"))
        }
        "CLIP_stop_at_last_layers" => whole(1, 12).map(Some),
        "jpeg_quality" => whole(1, 100).map(Some),
        "show_progress_every_n_steps" => whole(-1, 1000).map(Some),
        "live_previews_enable" => {
            value.as_bool().map(|_| Some(value.clone())).ok_or_else(|| wrong("true or false"))
        }
        _ => Ok(None),
    }
}

fn format(name: &str) -> Option<AnswerFormat> {
    Some(match name.to_lowercase().as_str() {
        "png" => AnswerFormat::Png,
        "jpg" | "jpeg" => AnswerFormat::Jpeg,
        "webp" => AnswerFormat::Webp,
        _ => return None,
    })
}

/// The title of a model: its name with the extension of its file.
pub(crate) fn title(info: &ModelInfo) -> String {
    let path = Path::new(&info.path);
    match path.extension().filter(|_| path.is_file()) {
        Some(extension) => format!("{}.{}", info.name, extension.to_string_lossy()),
        None => info.name.clone(),
    }
}

/// The model of a title, a name or a file; `TITLE [HASH]` too, as web UIs write it.
///
/// # Errors
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) with the known names.
pub(crate) fn model<'a>(models: &'a Models, given: &str) -> Result<&'a ModelInfo, WebUiError> {
    let hashed = given.trim().strip_suffix(']').and_then(|text| text.rsplit_once(" ["));
    let text = hashed
        .filter(|(_, hash)| !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map_or(given.trim(), |(name, _)| name);
    let by = |equal: fn(&str, &str) -> bool| {
        models.infos().iter().find(|info| {
            [info.name.as_str(), &title(info), &info.path].iter().any(|known| equal(known, text))
        })
    };
    by(|known, text| known == text).or_else(|| by(str::eq_ignore_ascii_case)).ok_or_else(|| {
        let known: Vec<_> = models.infos().iter().map(|info| info.name.as_str()).collect();
        WebUiError::unknown("Model", &known, given)
    })
}
