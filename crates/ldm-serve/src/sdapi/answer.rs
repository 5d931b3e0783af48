//! `txt2img` and `img2img`: jobs that a client waits for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::ORIGIN;
use super::body::{JsonObject, WebUiError};
use super::form::{ImageForm, TextForm};
use super::images::{checked_size, init_image, prepare};
use super::mask::Paste;
use super::names::{SCHEDULERS, theirs};
use super::options::{Settings, title};
use super::progress::timestamp;
use super::text::{Converted, converted};
use crate::base64_image::encode;
use crate::bodies::BodyRoom;
use crate::check::check_settings;
use crate::job::{Job, JobImage, JobState};
use crate::models::ConditionedOn;
use crate::server::App;
use crate::{ErrorKind, ServeError};

/// The images of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnswerImages {
    /// Base64.
    images: Vec<String>,
    /// The request.
    #[schema(value_type = Object)]
    parameters: Value,
    /// JSON: what each image was made by.
    info: String,
}

/// A request, ready to be a job.
struct ImageTask {
    form: TextForm,
    image_form: Option<ImageForm>,
    settings: Settings,
    converted: Converted,
    paste: Option<Arc<Paste>>,
}

/// `POST /sdapi/v1/txt2img`.
pub(crate) async fn text_to_image(
    State(app): State<Arc<App>>,
    room: BodyRoom,
    body: JsonObject,
) -> Result<Json<AnswerImages>, WebUiError> {
    let given = body.keys();
    let form: TextForm = body.parse()?;
    let settings = app.sdapi.settings(&app.models, &form.override_settings)?;
    let converted = converted(&form, &given, &settings, &app.models, &app.options.limits)?;
    let parameters = json!(form);
    ImageTask { form, image_form: None, settings, converted, paste: None }.run(&app, &room, parameters).await
}

/// `POST /sdapi/v1/img2img`.
pub(crate) async fn image_to_image(
    State(app): State<Arc<App>>,
    room: BodyRoom,
    mut body: JsonObject,
) -> Result<Json<AnswerImages>, WebUiError> {
    let mut image_form: ImageForm = body.take(&ImageForm::KEYS).parse()?;
    let given = body.keys();
    let mut form: TextForm = body.parse()?;
    init_image(&image_form)?;
    form.enable_hr = false;
    let settings = app.sdapi.settings(&app.models, &form.override_settings)?;
    let mut converted = converted(&form, &given, &settings, &app.models, &app.options.limits)?;
    let parameters = echoed(&form, &image_form);
    let request = &mut converted.request;
    request.hires = None;
    let info = app.models.find(request.model.as_deref())?;
    let conditioning = info.conditioning;
    let mut paste = None;
    if conditioning == ConditionedOn::LowResolution {
        request.image = Some(init_image(&image_form)?.to_owned());
        (request.width, request.height) = (None, None);
    } else {
        // Before the work with the images.
        let size = [request.width.unwrap_or_default(), request.height.unwrap_or_default()];
        let sides = checked_size(size, &app.options.limits)?;
        check_settings(request, info, &app.options.limits)?;
        // A model that completes images has noise under the mask.
        let strength = if conditioning.starts_from_image() { form.denoising_strength } else { 1. };
        let (limits, given) = (app.options.limits.clone(), std::mem::take(&mut image_form));
        let prepared = app.images.run(move || {
            let prepared = prepare(&given, sides, strength, &limits);
            Ok(prepared.map(|prepared| (prepared, given)))
        });
        let (prepared, given) = prepared.await??;
        image_form = given;
        request.image = Some(prepared.image);
        request.mask = prepared.mask;
        request.strength = conditioning.starts_from_image().then_some(strength);
        paste = prepared.paste.map(Arc::new);
    }
    // Not kept while the job waits.
    (image_form.init_images, image_form.mask) = (Vec::new(), None);
    let task = ImageTask { form, image_form: Some(image_form), settings, converted, paste };
    task.run(&app, &room, parameters).await
}

/// The fields of a request; its images only where it asks for them.
fn echoed(form: &TextForm, image_form: &ImageForm) -> Value {
    let mut all = Map::new();
    for fields in [json!(form), json!(image_form)] {
        if let Value::Object(fields) = fields {
            all.extend(fields);
        }
    }
    let shown = image_form.include_init_images;
    all.insert("init_images".to_owned(), if shown { json!(image_form.init_images) } else { Value::Null });
    all.insert("mask".to_owned(), if shown { json!(image_form.mask) } else { Value::Null });
    Value::Object(all)
}

/// Bytes of the texts in a value.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(fields) => fields.iter().map(|(key, value)| key.len() + text_bytes(value)).sum(),
        _ => 0,
    }
}

/// Remembers a task as ended, also when its client goes.
struct Ended<'a>(&'a App, Option<String>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if let Some(task) = &self.1 {
            self.0.sdapi.end(task);
        }
    }
}

impl ImageTask {
    /// Runs the job. One that was interrupted has the images that were complete.
    async fn run(
        mut self,
        app: &Arc<App>,
        room: &BodyRoom,
        parameters: Value,
    ) -> Result<Json<AnswerImages>, WebUiError> {
        let tag = self.form.force_task_id.clone().filter(|tag| !tag.is_empty());
        let _waiting = app.waits.answer()?;
        // Hundreds of requests may wait: each counts with what it keeps, the form and its copy, and the image.
        let kept = 2 * text_bytes(&parameters) + self.paste.as_ref().map_or(0, |paste| paste.bytes());
        room.reserve(kept)?;
        let request = std::mem::take(&mut self.converted.request);
        let job = app.submit(request, ORIGIN, tag.clone()).await?;
        room.keep(kept)?;
        let _ended = Ended(app, tag);
        let mut status = app.wait(&job).await?;
        if status.state == JobState::Failed {
            let unknown = || ServeError::new(ErrorKind::Internal, "the job failed");
            return Err(status.error.unwrap_or_else(unknown).into());
        }
        self.converted.notes.extend(status.notes);
        status.images.sort_by_key(|image| image.index);
        let mut images = Vec::new();
        for image in status.images.iter().filter(|_| self.form.send_images) {
            images.push(self.image(app, &job, image).await?);
        }
        let info = self.info(app, &job, &status.images)?.to_string();
        Ok(Json(AnswerImages { images, parameters, info }))
    }

    async fn image(&self, app: &Arc<App>, job: &Job, image: &JobImage) -> Result<String, ServeError> {
        let png = app.png(&job.id, image.index).await?;
        let (paste, text) = (self.paste.clone(), image.parameters.clone());
        let (format, quality) = (self.settings.format, self.settings.quality);
        let encoded = app.images.finish(move || {
            let png = match paste {
                Some(paste) => paste.paste(&png, &text)?,
                None => png,
            };
            Ok(encode(&format.encode(png, quality)?))
        });
        encoded.await
    }

    /// The JSON that clients read as `info`.
    fn info(&self, app: &App, job: &Job, images: &[JobImage]) -> Result<Value, ServeError> {
        let (form, request) = (&self.form, &job.request);
        let model = app.models.find(request.model.as_deref())?;
        let count = images.len();
        let seeds: Vec<_> = images.iter().map(|image| image.seed).collect();
        let first = request.variation.map_or(form.subseed, |to| to.seed as i64);
        let subseeds = images.iter().map(|image| match request.variation {
            Some(to) => to.seed.wrapping_add(image.index as u64) as i64,
            None => form.subseed,
        });
        let strength = request.hires.map(|hires| hires.strength).or(request.strength);
        let prompt = request.class.as_ref().unwrap_or(&request.prompt);
        Ok(json!({
            "prompt": prompt,
            "all_prompts": vec![prompt; count],
            "negative_prompt": request.negative_prompt,
            "all_negative_prompts": vec![&request.negative_prompt; count],
            "seed": job.seed(0),
            "all_seeds": seeds,
            "subseed": first,
            "all_subseeds": subseeds.collect::<Vec<_>>(),
            "subseed_strength": request.variation.map_or(0., |to| to.strength),
            "width": request.width.or(images.first().map(|image| i64::from(image.width))).unwrap_or(model.width),
            "height": request.height.or(images.first().map(|image| i64::from(image.height))).unwrap_or(model.height),
            "sampler_name": theirs(request.sampler.as_deref().unwrap_or(&model.sampler)),
            "cfg_scale": request.guidance_scale.unwrap_or(1.),
            "steps": request.steps,
            "batch_size": form.batch_size,
            "restore_faces": false,
            "face_restoration_model": null,
            "sd_model_name": model.name,
            "sd_model_hash": "",
            "sd_vae_name": null,
            "sd_vae_hash": null,
            "seed_resize_from_w": form.seed_resize_from_w,
            "seed_resize_from_h": form.seed_resize_from_h,
            "denoising_strength": strength,
            "extra_generation_params": self.extra(job),
            "index_of_first_image": 0,
            "infotexts": images.iter().map(|image| &image.parameters).collect::<Vec<_>>(),
            "styles": [],
            "job_timestamp": timestamp(job.created),
            "clip_skip": request.clip_skip.unwrap_or(1),
            "is_using_inpainting_conditioning":
                matches!(model.conditioning, ConditionedOn::Inpainting | ConditionedOn::TextInpainting),
            "version": concat!("ldm ", env!("CARGO_PKG_VERSION")),
            "sd_model_checkpoint": title(model),
            "task": job.id,
            "notes": self.converted.notes,
        }))
    }

    /// Settings that not every image has, under the names of infotexts.
    fn extra(&self, job: &Job) -> Value {
        let mut extra = Map::new();
        let request = &job.request;
        let spacing = request.spacing.as_deref();
        if let Some(known) = SCHEDULERS.iter().find(|known| spacing.is_some() && known.spacing == spacing) {
            extra.insert("Schedule type".to_owned(), json!(known.label));
        }
        if let Some(hires) = request.hires {
            extra.insert("Hires upscale".to_owned(), json!(hires.scale));
            extra.insert("Hires upscaler".to_owned(), json!("Lanczos"));
            if let Some(steps) = hires.steps {
                extra.insert("Hires steps".to_owned(), json!(steps));
            }
        }
        if let Some(form) = self.image_form.as_ref().filter(|_| request.mask.is_some()) {
            let [x, y] = form.blur();
            extra.insert("Mask blur".to_owned(), json!(x.max(y)));
            extra.insert(
                "Inpaint area".to_owned(),
                json!(if form.inpaint_full_res { "Only masked" } else { "Whole picture" }),
            );
        }
        Value::Object(extra)
    }
}
