//! diffusers' `scheduler_config.json`: noise schedule, parameterization, sampler and spacing.

use std::path::Path;

use ldm_core::diffusers::{Fields, VERSION, wrong};
use ldm_core::{Error, Result};
use ldm_schedulers::{
    BetaSchedule, Denoiser, DynamicThresholding, Parameterization, SamplerConfig, ScheduleConfig, Spacing,
    StaticThresholding,
};
use serde_json::{Map, Value, json};

use super::sampler::SamplingPlan;
use crate::LatentDiffusionConfig;

/// A `scheduler_config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffusersScheduler {
    /// `_class_name`.
    pub class: String,
    /// β over training time; `v_posterior` is 0.
    pub schedule: ScheduleConfig,
    /// `prediction_type`.
    pub parameterization: Parameterization,
    /// Thresholding of predicted clean samples.
    pub thresholding: Option<Thresholding>,
    /// The whole file.
    pub fields: Map<String, Value>,
    plan: SamplingPlan,
}

/// Thresholding of predicted clean samples: for models of pixels, not of latents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Thresholding {
    /// `clip_sample`.
    Static {
        /// `clip_sample_range`.
        range: f64,
    },
    /// `thresholding`.
    Dynamic {
        /// `dynamic_thresholding_ratio`.
        ratio: f64,
        /// `sample_max_value`.
        max: f64,
    },
}

/// Classes whose default is `clip_sample: true`.
const CLIPPING: [&str; 5] =
    ["DDIMScheduler", "DDPMScheduler", "DDIMParallelScheduler", "DDPMParallelScheduler", "TCDScheduler"];

impl DiffusersScheduler {
    /// Opens a `scheduler_config.json`.
    ///
    /// # Errors
    /// As [`from_diffusers`](Self::from_diffusers), with the path; [`Error::Io`] and [`Error::Format`] when it cannot
    /// be read or is not JSON.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_diffusers(&read_json(path)?).map_err(|error| Error::config(path, error.to_string()))
    }

    /// Reads the file; fields that are absent have the defaults of diffusers' class.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field, for another class or an unsupported schedule.
    pub fn from_diffusers(json: &Value) -> Result<Self> {
        let fields = Fields::new(json)?;
        let class = fields.class()?.to_owned();
        if class.starts_with("Flow") {
            return Err(wrong("_class_name", "a diffusion scheduler", json.get("_class_name")));
        }
        let word = fields.word("prediction_type", &["epsilon", "sample", "v_prediction"])?;
        let parameterization = match word {
            "sample" => Parameterization::X0,
            "v_prediction" => Parameterization::V,
            _ => Parameterization::Eps,
        };
        let key = "rescale_betas_zero_snr";
        let zero_terminal_snr = fields.flag(key, false)?;
        if zero_terminal_snr && parameterization == Parameterization::Eps {
            return Err(wrong(key, "false with epsilon, which is undefined in pure noise", fields.get(key)));
        }
        let schedule = ScheduleConfig { zero_terminal_snr, ..schedule(&fields)? };
        Ok(Self {
            plan: SamplingPlan::read(&class, &fields, &schedule)?,
            schedule,
            parameterization,
            thresholding: thresholding(&fields, CLIPPING.contains(&class.as_str()))?,
            fields: json.as_object().cloned().unwrap_or_default(),
            class,
        })
    }

    /// The nearest available sampler, its spacing, and a message about settings of the file that are not followed.
    pub fn sampler(&self) -> (SamplerConfig, Spacing, Option<String>) {
        (self.plan.sampler, self.plan.spacing.clone(), self.plan.note.clone())
    }
}

impl Thresholding {
    /// `denoiser` with thresholding.
    pub fn apply(self, denoiser: Box<dyn Denoiser + '_>) -> Box<dyn Denoiser + '_> {
        match self {
            Self::Static { range } => Box::new(StaticThresholding { denoiser, range }),
            Self::Dynamic { ratio, max } => Box::new(DynamicThresholding { denoiser, ratio, max }),
        }
    }
}

fn thresholding(fields: &Fields, clips: bool) -> Result<Option<Thresholding>> {
    let number = |key: &str, default: f64| Ok::<_, Error>(fields.maybe_number(key)?.unwrap_or(default));
    if fields.flag("thresholding", false)? {
        let (ratio, max) = (number("dynamic_thresholding_ratio", 0.995)?, number("sample_max_value", 1.)?);
        if !(0. ..=1.).contains(&ratio) {
            let key = "dynamic_thresholding_ratio";
            return Err(wrong(key, "a number in [0, 1]", fields.get(key)));
        }
        return Ok(Some(Thresholding::Dynamic { ratio, max }));
    }
    let range = number("clip_sample_range", 1.)?;
    Ok(fields.flag("clip_sample", clips)?.then_some(Thresholding::Static { range }))
}

/// The noise schedule. diffusers' `scaled_linear` is CompVis' `linear`.
fn schedule(fields: &Fields) -> Result<ScheduleConfig> {
    let steps = fields.integer("num_train_timesteps", 1000)?;
    let timesteps = usize::try_from(steps)
        .map_err(|_| wrong("num_train_timesteps", "at least 2", fields.get("num_train_timesteps")))?;
    let mut schedule = ScheduleConfig {
        timesteps,
        linear_start: fields.maybe_number("beta_start")?.unwrap_or(1e-4),
        linear_end: fields.maybe_number("beta_end")?.unwrap_or(2e-2),
        ..ScheduleConfig::default()
    };
    if let Some(given) = fields.get("trained_betas") {
        let refuse = || wrong("trained_betas", "a list of numbers", Some(given));
        let betas = given.as_array().ok_or_else(refuse)?;
        schedule.given_betas =
            Some(betas.iter().map(|beta| beta.as_f64().ok_or_else(refuse)).collect::<Result<_>>()?);
        return Ok(schedule);
    }
    schedule.beta_schedule =
        match fields.word("beta_schedule", &["linear", "scaled_linear", "squaredcos_cap_v2"])? {
            "scaled_linear" => BetaSchedule::Linear,
            "squaredcos_cap_v2" => BetaSchedule::Cosine,
            _ => BetaSchedule::SqrtLinear,
        };
    Ok(schedule)
}

/// diffusers' `scheduler_config.json` of a model: DDIM with CompVis' steps.
///
/// # Errors
/// [`Error::Invalid`] with the key that diffusers cannot express.
pub(crate) fn to_diffusers(config: &LatentDiffusionConfig) -> Result<Value> {
    if config.v_posterior != 0. {
        let got = config.v_posterior;
        return Err(Error::invalid(format!(
            "`v_posterior`: expected 0, the only value in diffusers, got {got}"
        )));
    }
    let schedule = config.schedule();
    let (word, given) = match (&schedule.given_betas, schedule.beta_schedule) {
        (Some(betas), _) => ("linear", Some(betas.clone())),
        (None, BetaSchedule::Linear) => ("scaled_linear", None),
        (None, BetaSchedule::SqrtLinear) => ("linear", None),
        (None, BetaSchedule::Cosine) if schedule.cosine_s == ScheduleConfig::default().cosine_s => {
            ("squaredcos_cap_v2", None)
        }
        (None, other) => {
            let word = json!(other);
            return Err(Error::invalid(format!(
                "`beta_schedule`: expected linear, sqrt_linear, cosine with cosine_s 0.008, or given_betas, those of \
                 diffusers, got {word}"
            )));
        }
    };
    Ok(json!({
        "_class_name": "DDIMScheduler",
        "_diffusers_version": VERSION,
        "beta_end": schedule.linear_end,
        "beta_schedule": word,
        "beta_start": schedule.linear_start,
        "clip_sample": false,
        "num_train_timesteps": schedule.timesteps,
        "prediction_type": match config.parameterization {
            Parameterization::Eps => "epsilon",
            Parameterization::X0 => "sample",
            Parameterization::V => "v_prediction",
        },
        "rescale_betas_zero_snr": schedule.zero_terminal_snr,
        "set_alpha_to_one": false,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": given,
    }))
}

/// Reads a JSON file, without the `-Infinity` that diffusers writes for the default of `lambda_min_clipped`, which is
/// not JSON.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let text = ldm_core::text::read(path)?;
    let text = text.replace("\"lambda_min_clipped\": -Infinity", "\"lambda_min_clipped\": null");
    let mut json: Value = serde_json::from_str(&text)
        .map_err(|error| Error::format(path, format!("expected JSON, got {error}")))?;
    if let Some(fields) = json.as_object_mut()
        && fields.get("lambda_min_clipped").is_some_and(Value::is_null)
    {
        fields.remove("lambda_min_clipped");
    }
    Ok(json)
}
