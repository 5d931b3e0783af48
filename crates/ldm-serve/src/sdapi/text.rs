//! Requests of AUTOMATIC1111's API as requests of jobs.

use std::collections::HashSet;

use super::body::WebUiError;
use super::form::TextForm;
use super::names::{self, Chosen};
use super::options::{Settings, model};
use super::prompt::loras;
use crate::check::LONGEST_NAME;
use crate::models::{ConditionedOn, ModelInfo, Models};
use crate::options::Limits;
use crate::parameters::request_of;
use crate::request::{GenerationRequest, HiresRequest, VariationRequest};
use crate::{ServeError, job};

/// A request of a job, with what was not followed.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) request: GenerationRequest,
    pub(crate) notes: Vec<String>,
}

/// The request of a form, whose body had the fields `given`.
///
/// # Errors
/// For names that the server does not know, and for settings that it cannot follow and that would change the images.
pub(crate) fn converted(
    form: &TextForm,
    given: &HashSet<String>,
    settings: &Settings,
    models: &Models,
    limits: &Limits,
) -> Result<Converted, WebUiError> {
    check_lengths(form, limits)?;
    refuse_scripts(form)?;
    let info = models.find(settings.model.as_deref())?;
    let name = form.sampler_name.as_deref().unwrap_or(&form.sampler_index);
    let chosen = names::choose(name, form.scheduler.as_deref())?;
    refuse(form, &chosen)?;
    let (prompt, loras) = loras(&form.prompt)?;
    let (width, height, hires) = sizes(form, info)?;
    let class = (info.conditioning == ConditionedOn::Class).then(|| prompt.trim().to_owned());
    let random = |seed: i64| if seed < 0 { None } else { Some(seed as u64) };
    let subseed = random(form.subseed);
    let variation = (form.subseed_strength != 0.).then_some(form.subseed_strength);
    let variation = variation.map(|strength| {
        let seed = subseed
            .map_or_else(|| job::new_id().map(|id| u64::from_str_radix(&id[..8], 16).unwrap_or(1)), Ok);
        seed.map(|seed| VariationRequest { seed, strength })
    });
    let guided = matches!(
        info.conditioning,
        ConditionedOn::Class | ConditionedOn::Text | ConditionedOn::Layout | ConditionedOn::TextInpainting
    );
    let has_eta = chosen.sampler.config().eta().is_some();
    let mut notes: Vec<_> = chosen.note.into_iter().collect();
    if settings.clip_skip != 1 && !info.clip {
        notes.push(format!("CLIP_stop_at_last_layers: of no use for {}", info.name));
    }
    let mut request = GenerationRequest {
        model: settings.model.clone(),
        prompt: if class.is_some() { String::new() } else { prompt },
        negative_prompt: form.negative_prompt.clone(),
        class,
        seed: random(form.seed),
        n: images(form)?,
        height: Some(height),
        width: Some(width),
        steps: Some(count("steps", form.steps)?),
        sampler: Some(chosen.sampler.ours.to_owned()),
        spacing: chosen.spacing.map(str::to_owned),
        // Clients send 1 to every sampler.
        eta: form.eta.filter(|_| has_eta),
        guidance_scale: guided.then_some(form.cfg_scale),
        clip_skip: (info.clip && settings.clip_skip != 1).then_some(settings.clip_skip),
        prompt_syntax: info.clip.then(|| "weights".to_owned()),
        hires,
        variation: variation.transpose()?,
        loras: if form.disable_extra_networks { Vec::new() } else { loras },
        ..GenerationRequest::default()
    };
    if let Some(text) = form.infotext.as_deref().filter(|text| !text.trim().is_empty()) {
        let overridden = form.override_settings.contains_key("sd_model_checkpoint");
        notes.extend(follow(&mut request, text, given, overridden, models)?);
    }
    Ok(Converted { request, notes })
}

/// Checks the lengths of texts, before anything looks at them.
fn check_lengths(form: &TextForm, limits: &Limits) -> Result<(), WebUiError> {
    let option = |text: &Option<String>| text.as_ref().map_or(0, |text| text.chars().count());
    for (field, length, most) in [
        ("prompt", form.prompt.chars().count(), limits.prompt),
        ("negative_prompt", form.negative_prompt.chars().count(), limits.prompt),
        ("hr_prompt", form.hr_prompt.chars().count(), limits.prompt),
        ("hr_negative_prompt", form.hr_negative_prompt.chars().count(), limits.prompt),
        // Both prompts and the settings.
        ("infotext", option(&form.infotext), 3 * limits.prompt),
        ("sampler_index", form.sampler_index.chars().count(), LONGEST_NAME),
        ("sampler_name", option(&form.sampler_name), LONGEST_NAME),
        ("scheduler", option(&form.scheduler), LONGEST_NAME),
        ("force_task_id", option(&form.force_task_id), LONGEST_NAME),
    ] {
        if length > most {
            return Err(WebUiError::invalid(field, format!("expected at most {most} characters")));
        }
    }
    let other_id = |id: &String| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if form.force_task_id.as_ref().is_some_and(other_id) {
        let message = "expected a name other than 32 hexadecimal digits, which are names of the server's";
        return Err(WebUiError::invalid("force_task_id", message));
    }
    Ok(())
}

/// Takes the fields of a text `parameters` that the body does not have, as AUTOMATIC1111 does (`modules/api/api.py`
/// `apply_infotext`); returns what the text has besides.
fn follow(
    request: &mut GenerationRequest,
    text: &str,
    keys: &HashSet<String>,
    overridden: bool,
    models: &Models,
) -> Result<Vec<String>, WebUiError> {
    let given = |names: &[&str]| names.iter().any(|name| keys.contains(*name));
    let found = request_of(text)
        .ok_or_else(|| WebUiError::invalid("infotext", "expected a last line that begins with Steps:"))?;
    let by = found.request;
    let mut ignored: Vec<_> =
        found.ignored.iter().map(|field| format!("infotext: {field} is not followed")).collect();
    match found.model.filter(|_| !overridden).map(|name| model(models, &name).map(|info| info.name.clone())) {
        Some(Ok(name)) => request.model = Some(name),
        Some(Err(_)) => ignored.push("infotext: its model is not one of the server's".to_owned()),
        None => {}
    }
    if !given(&["prompt"]) {
        let (prompt, loras) = loras(&by.prompt)?;
        request.loras = if by.loras.is_empty() { loras } else { by.loras };
        match by.class {
            Some(class) => request.class = Some(class),
            None if request.class.is_none() => request.prompt = prompt,
            None => {}
        }
    }
    if !given(&["negative_prompt"]) {
        request.negative_prompt = by.negative_prompt;
    }
    if by.sampler.is_some() && !given(&["sampler_name", "sampler_index", "scheduler"]) {
        (request.sampler, request.spacing) = (by.sampler, by.spacing);
        request.eta = if given(&["eta"]) { request.eta } else { by.eta };
    }
    if by.width.is_some() && !given(&["width", "height"]) {
        (request.width, request.height) = (by.width, by.height);
    }
    if !given(&["enable_hr"]) {
        request.hires = by.hires.or(request.hires);
    }
    if !given(&["subseed", "subseed_strength"]) {
        request.variation = by.variation.or(request.variation);
    }
    let replaces = |key: &str, there: bool| there && !given(&[key]);
    if replaces("seed", by.seed.is_some()) {
        request.seed = by.seed;
    }
    if replaces("steps", by.steps.is_some()) {
        request.steps = by.steps;
    }
    if replaces("cfg_scale", by.guidance_scale.is_some()) {
        request.guidance_scale = by.guidance_scale;
    }
    // Without a field of the form.
    request.guidance_rescale = by.guidance_rescale;
    request.guidance_interval = by.guidance_interval;
    request.clip_skip = by.clip_skip.or(request.clip_skip);
    request.prompt_syntax = by.prompt_syntax.or(request.prompt_syntax.take());
    request.tile = by.tile;
    request.deep_cache = by.deep_cache;
    request.token_merging = by.token_merging;
    Ok(ignored)
}

fn count(field: &str, value: i64) -> Result<usize, WebUiError> {
    let number = usize::try_from(value).ok().filter(|number| *number > 0);
    number.ok_or_else(|| ServeError::expected(field, "at least 1", value).into())
}

fn images(form: &TextForm) -> Result<usize, WebUiError> {
    let (size, runs) = (count("batch_size", form.batch_size)?, count("n_iter", form.n_iter)?);
    size.checked_mul(runs).ok_or_else(|| WebUiError::invalid("n_iter", "expected fewer images"))
}

/// Width and height of the first pass, and the second pass.
fn sizes(form: &TextForm, info: &ModelInfo) -> Result<(i64, i64, Option<HiresRequest>), WebUiError> {
    let (mut width, mut height) = (form.width.unwrap_or(info.width), form.height.unwrap_or(info.height));
    if !form.enable_hr {
        return Ok((width, height, None));
    }
    let [mut to_width, mut to_height] = [form.hr_resize_x, form.hr_resize_y];
    if form.firstphase_width > 0 && form.firstphase_height > 0 {
        // Before 2023 the size was that of the second pass.
        [to_width, to_height] = [width, height];
        (width, height) = (form.firstphase_width, form.firstphase_height);
    }
    let ratio = |to: i64, from: i64| to as f64 / from as f64;
    let scale = match (to_width, to_height) {
        (0, 0) => form.hr_scale,
        (to, 0) => ratio(to, width),
        (0, to) => ratio(to, height),
        (x, y) if i128::from(x) * i128::from(height) == i128::from(y) * i128::from(width) => ratio(x, width),
        (x, y) => {
            let expected = format!("the ratio of the first pass, {width}x{height}");
            return Err(
                ServeError::expected("hr_resize_x and hr_resize_y", expected, format!("{x}x{y}")).into()
            );
        }
    };
    let steps = usize::try_from(form.hr_second_pass_steps).ok().filter(|steps| *steps > 0);
    Ok((width, height, Some(HiresRequest { scale, strength: form.denoising_strength, steps })))
}

fn refuse_scripts(form: &TextForm) -> Result<(), WebUiError> {
    if let Some(name) = form.script_name.as_deref().filter(|name| !matches!(*name, "" | "None")) {
        let name: String = name.chars().take(100).collect();
        return Err(WebUiError::Script(format!("Script '{name}' not found")));
    }
    // Clients send scripts that are off.
    let off =
        |args: &serde_json::Value| args.as_array().is_none_or(|args| args.iter().all(|arg| *arg == false));
    let on = form.alwayson_scripts.iter().find(|(_, script)| !off(script.get("args").unwrap_or(script)));
    match on {
        Some((name, _)) => {
            let name: String = name.chars().take(100).collect();
            Err(WebUiError::Script(format!("always on script {name} not found")))
        }
        None => Ok(()),
    }
}

/// True where the second pass has the sampler and the scheduler of the first.
fn same_in_hires(form: &TextForm, chosen: &Chosen) -> Result<bool, WebUiError> {
    let given =
        |name: &Option<String>, same: &str| name.clone().filter(|name| !name.is_empty() && name != same);
    let sampler = given(&form.hr_sampler_name, "Use same sampler");
    let scheduler = given(&form.hr_scheduler, "Use same scheduler");
    if sampler.is_none() && scheduler.is_none() {
        return Ok(true);
    }
    let second = names::choose(sampler.as_deref().unwrap_or(chosen.sampler.theirs), scheduler.as_deref())?;
    let spacing = if scheduler.is_some() { second.spacing } else { second.spacing.or(chosen.spacing) };
    Ok(second.sampler.ours == chosen.sampler.ours && spacing == chosen.spacing)
}

/// Refuses what would change the images and cannot be done.
fn refuse(form: &TextForm, chosen: &Chosen) -> Result<(), WebUiError> {
    let sampler = chosen.sampler.config();
    let other = |name: &Option<String>, same: &str| {
        let name = name.as_deref().unwrap_or_default();
        !name.is_empty() && !name.eq_ignore_ascii_case(same)
    };
    let hires = form.enable_hr;
    let hires_sampler = hires && !same_in_hires(form, chosen)?;
    let churned = matches!(chosen.sampler.ours, "euler" | "heun" | "dpm2");
    let resized = |from: i64, to: Option<i64>| from > 0 && to != Some(from);
    for (field, wrong, expected) in [
        ("restore_faces", form.restore_faces, "false, since there is no model of faces"),
        ("tiling", form.tiling, "false, since images do not tile"),
        (
            "styles",
            form.styles.iter().any(|name| !matches!(name.as_str(), "" | "None")),
            "none, since there are no styles",
        ),
        (
            "refiner_checkpoint",
            other(&form.refiner_checkpoint, "None"),
            "none, since one model samples an image",
        ),
        ("s_churn", form.s_churn != 0. && churned, "0"),
        ("s_noise", form.s_noise != 1. && (sampler.adds_noise() || form.s_churn != 0. && churned), "1"),
        ("s_min_uncond", form.s_min_uncond != 0., "0"),
        ("seed_resize_from_h", resized(form.seed_resize_from_h, form.height), "the height, or none"),
        ("seed_resize_from_w", resized(form.seed_resize_from_w, form.width), "the width, or none"),
        (
            "hr_checkpoint_name",
            hires && other(&form.hr_checkpoint_name, "Use same checkpoint"),
            "the same model",
        ),
        ("hr_sampler_name and hr_scheduler", hires_sampler, "those of the first pass"),
        (
            "hr_prompt",
            hires && !form.hr_prompt.is_empty() && form.hr_prompt != form.prompt,
            "the same prompt, or none",
        ),
        (
            "hr_negative_prompt",
            hires && !form.hr_negative_prompt.is_empty() && form.hr_negative_prompt != form.negative_prompt,
            "the same prompt, or none",
        ),
    ] {
        if wrong {
            return Err(WebUiError::invalid(field, format!("expected {expected}")));
        }
    }
    if let Some(name) = form.hr_upscaler.as_deref().filter(|_| hires)
        && !(matches!(name, "" | "None" | "Lanczos") || name.starts_with("Latent"))
    {
        return Err(WebUiError::unknown("Upscaler", &["Lanczos", "Latent"], name));
    }
    if form.seed < -1 {
        return Err(ServeError::expected("seed", "-1, which is random, or above", form.seed).into());
    }
    Ok(())
}
