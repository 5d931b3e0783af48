//! diffusers' `scheduler_config.json`: the noise schedule, what the network predicts, and how one samples.

use std::path::Path;

use ldm_core::diffusers::{Fields, VERSION, wrong};
use ldm_core::{Error, Result};
use ldm_schedulers::{BetaSchedule, Parameterization, SamplerConfig, ScheduleConfig, Spacing};
use serde_json::{Map, Value, json};

use crate::LatentDiffusionConfig;

/// What a `scheduler_config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffusersScheduler {
    /// `_class_name`.
    pub class: String,
    /// β over training time; `v_posterior` is 0.
    pub schedule: ScheduleConfig,
    /// `prediction_type`.
    pub parameterization: Parameterization,
    /// `clip_sample` with its range: predicted pictures are held within, up and down.
    pub clip_sample: Option<f64>,
    /// `timestep_spacing`: leading, trailing or linspace.
    pub timestep_spacing: String,
    /// `steps_offset`.
    pub steps_offset: i64,
    /// `set_alpha_to_one`: the last step ends without noise, and not at the level 0.
    pub set_alpha_to_one: bool,
    /// The whole file.
    pub fields: Map<String, Value>,
}

/// Classes whose clean sample is clamped unless they say otherwise.
const CLIPPING: [&str; 5] =
    ["DDIMScheduler", "DDPMScheduler", "DDIMParallelScheduler", "DDPMParallelScheduler", "TCDScheduler"];
/// Classes that space their steps from the front unless they say otherwise; the others evenly over all.
const LEADING: [&str; 7] = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DDIMParallelScheduler",
    "DDPMParallelScheduler",
    "PNDMScheduler",
    "LCMScheduler",
    "TCDScheduler",
];

impl DiffusersScheduler {
    /// Reads the file; fields that are absent have the defaults of diffusers' class.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field, when it is none of diffusers' schedulers or of a schedule ours cannot have.
    pub fn from_diffusers(json: &Value) -> Result<Self> {
        let fields = Fields::new(json)?;
        let class = fields.class()?.to_owned();
        if class.starts_with("Flow") {
            return Err(wrong(
                "_class_name",
                "a scheduler of diffusion, not of flows",
                json.get("_class_name"),
            ));
        }
        fields.check(&json!({ "rescale_betas_zero_snr": [false], "thresholding": [false] }))?;
        let word = fields.word("prediction_type", &["epsilon", "sample", "v_prediction"])?;
        let parameterization = match word {
            "sample" => Parameterization::X0,
            "v_prediction" => Parameterization::V,
            _ => Parameterization::Eps,
        };
        let clips = fields.flag("clip_sample", CLIPPING.contains(&class.as_str()))?;
        let range = fields.maybe_number("clip_sample_range")?.unwrap_or(1.);
        let spacing = if LEADING.contains(&class.as_str()) {
            ["leading", "linspace", "trailing"]
        } else {
            ["linspace", "leading", "trailing"]
        };
        Ok(Self {
            schedule: schedule(&fields)?,
            parameterization,
            clip_sample: clips.then_some(range),
            timestep_spacing: fields.word("timestep_spacing", &spacing)?.to_owned(),
            steps_offset: fields.integer("steps_offset", 0)?,
            set_alpha_to_one: fields.flag("set_alpha_to_one", class != "PNDMScheduler")?,
            fields: json.as_object().cloned().unwrap_or_default(),
            class,
        })
    }

    /// The nearest sampler there is here, and in a sentence what of the file it does not follow.
    pub fn sampler(&self) -> (SamplerConfig, Spacing, Option<String>) {
        let sampler = match self.class.as_str() {
            "DDPMScheduler" => SamplerConfig::Ddpm {},
            _ => SamplerConfig::Ddim { eta: 0. },
        };
        let from_front = self.timestep_spacing == "leading";
        let spacing = match (from_front, self.steps_offset, self.set_alpha_to_one) {
            (true, 1, false) => Some(Spacing::Uniform),
            (true, 0, true) => Some(Spacing::Leading),
            _ if self.class == "DDPMScheduler" && from_front && self.steps_offset == 0 => {
                Some(Spacing::Leading)
            }
            _ => None,
        };
        let mut departs = Vec::new();
        if !["DDIMScheduler", "DDPMScheduler"].contains(&self.class.as_str()) {
            departs.push(format!("{} is not here, {} samples in its place", self.class, sampler.name()));
        } else if spacing.is_none() {
            let Self { timestep_spacing, steps_offset, set_alpha_to_one, .. } = self;
            departs.push(format!(
                "timestep_spacing {timestep_spacing} with steps_offset {steps_offset} and set_alpha_to_one \
                 {set_alpha_to_one} is not here, {} spaces its steps as the reference",
                sampler.name()
            ));
        }
        if self.clip_sample.is_some_and(|range| range != 1.) {
            departs.push("clip_sample_range is not here, samples are held in [-1, 1]".into());
        }
        let note = (!departs.is_empty()).then(|| departs.join("; "));
        (sampler, spacing.unwrap_or(Spacing::Uniform), note)
    }
}

/// diffusers' `beta_schedule` and its kin. diffusers' `scaled_linear` is the reference's `linear`.
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

/// diffusers' `scheduler_config.json` of a model: its DDIM, which steps as the reference's.
///
/// # Errors
/// [`Error::Invalid`] when diffusers cannot say it; it names the key.
pub(crate) fn to_diffusers(config: &LatentDiffusionConfig) -> Result<Value> {
    if config.v_posterior != 0. {
        let got = config.v_posterior;
        return Err(Error::invalid(format!(
            "`v_posterior`: expected 0, as diffusers has nothing else, got: {got}"
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
                "`beta_schedule`: expected linear, sqrt_linear, cosine of cosine_s 0.008, or given_betas, as diffusers has \
                 nothing else, got: {word}"
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
        "set_alpha_to_one": false,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": given,
    }))
}

/// A JSON file.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::format(path, format!("not JSON: {error}")))
}
