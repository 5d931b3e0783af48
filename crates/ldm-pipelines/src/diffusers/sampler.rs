//! Which sampler and which spacing a `scheduler_config.json` asks for.

use ldm_core::Result;
use ldm_core::diffusers::{Fields, wrong};
use ldm_schedulers::{
    BetaSchedule, DiffusersSpacing, SamplerConfig, ScheduleConfig, SchedulerFamily, SigmaSpacing, Spacing,
    TimestepSpacing,
};
use serde_json::Value;

/// How to sample as the file says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SamplingPlan {
    /// The nearest solver there is here.
    pub(crate) sampler: SamplerConfig,
    /// The levels it visits.
    pub(crate) spacing: Spacing,
    /// In a sentence, what of the file it does not follow.
    pub(crate) note: Option<String>,
}

/// Classes that space their steps from the front unless they say otherwise; the others evenly over all.
const LEADING: [&str; 4] = ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler"];

/// By class, fields and the values of them that are followed, as JSON; the first is the class's default, and what is absent
/// or null has it.
fn followed(class: &str) -> &'static [(&'static str, &'static str)] {
    match class {
        "DDPMScheduler" => &[("variance_type", r#"["fixed_small", "fixed_small_log"]"#)],
        "PNDMScheduler" => &[("skip_prk_steps", "[false, true]")],
        "EulerDiscreteScheduler" => &[
            ("use_beta_sigmas", "[false]"),
            ("interpolation_type", r#"["linear"]"#),
            ("timestep_type", r#"["discrete"]"#),
            ("sigma_min", "[null]"),
            ("sigma_max", "[null]"),
        ],
        "HeunDiscreteScheduler" | "LMSDiscreteScheduler" => &[("use_beta_sigmas", "[false]")],
        "DPMSolverMultistepScheduler" => &[
            ("use_beta_sigmas", "[false]"),
            ("use_lu_lambdas", "[false]"),
            ("use_flow_sigmas", "[false]"),
            ("algorithm_type", r#"["dpmsolver++", "sde-dpmsolver++", "deis"]"#),
            ("solver_order", "[2, 1]"),
            ("solver_type", r#"["midpoint", "logrho", "bh1", "bh2"]"#),
            ("lambda_min_clipped", "[null]"),
            ("variance_type", "[null]"),
        ],
        "UniPCMultistepScheduler" => &[
            ("use_beta_sigmas", "[false]"),
            ("use_flow_sigmas", "[false]"),
            ("predict_x0", "[true]"),
            ("solver_order", "[2, 1, 3]"),
            ("solver_type", r#"["bh2", "midpoint", "heun", "logrho"]"#),
            ("disable_corrector", "[[]]"),
            ("solver_p", "[null]"),
        ],
        "LCMScheduler" => &[("timestep_scaling", "[10.0]")],
        _ => &[],
    }
}

impl SamplingPlan {
    /// Reads the fields of `class` that say how one samples.
    pub(crate) fn read(class: &str, fields: &Fields, schedule: &ScheduleConfig) -> Result<Self> {
        let Some((sampler, family)) = solver(class, fields, schedule)? else {
            let sampler = SamplerConfig::Ddim { eta: 0. };
            let note = format!("{class} is not here, {} samples in its place", sampler.name());
            return Ok(Self { sampler, spacing: Spacing::Uniform, note: Some(note) });
        };
        let spacings = if LEADING.contains(&class) {
            ["leading", "linspace", "trailing"]
        } else {
            ["linspace", "leading", "trailing"]
        };
        let times = match fields.word("timestep_spacing", &spacings)? {
            "leading" => TimestepSpacing::Leading,
            "trailing" => TimestepSpacing::Trailing,
            _ => TimestepSpacing::Linspace,
        };
        let offset = fields.integer("steps_offset", 0)?;
        let to_clean = match class {
            "DDIMScheduler" => fields.flag("set_alpha_to_one", true)?,
            "PNDMScheduler" => fields.flag("set_alpha_to_one", false)?,
            "EulerDiscreteScheduler" | "DPMSolverMultistepScheduler" | "UniPCMultistepScheduler" => {
                fields.word("final_sigmas_type", &["zero", "sigma_min"])? == "zero"
            }
            _ => true,
        };
        let spacing = DiffusersSpacing {
            family,
            times,
            steps_offset: usize::try_from(offset)
                .map_err(|_| wrong("steps_offset", "0 or more", fields.get("steps_offset")))?,
            sigmas: sigmas(class, fields)?,
            to_clean,
        };
        let mut departs = departures(class, fields);
        if family == SchedulerFamily::Ddim && times == TimestepSpacing::Linspace {
            departs.push(format!(
                "`timestep_spacing` linspace: the steps of {class} do not end where the next begin, here they do"
            ));
        }
        if class == "PNDMScheduler" && !fields.flag("skip_prk_steps", false)? {
            departs.push("`skip_prk_steps` false is not here, the first step asks twice and no more".into());
        }
        if class == "PNDMScheduler" && fields.get("prediction_type").is_some_and(|of| of == "v_prediction") {
            departs.push(
                "PNDMScheduler averages what the network says, v, of several steps; here the noise".into(),
            );
        }
        if !to_clean && fields.flag("euler_at_final", false)? {
            departs.push("`euler_at_final` true is not here".into());
        }
        let note = (!departs.is_empty()).then(|| departs.join("; "));
        Ok(Self { sampler, spacing: Spacing::Diffusers(spacing), note })
    }
}

/// The solver of a class and how it spaces; `None` for a class that is not here.
fn solver(
    class: &str,
    fields: &Fields,
    schedule: &ScheduleConfig,
) -> Result<Option<(SamplerConfig, SchedulerFamily)>> {
    use SchedulerFamily::{Ddim, Euler, Lcm};
    let order = || -> Result<usize> { Ok(fields.integer("solver_order", 2)?.clamp(1, 3) as usize) };
    let lower_order_final = || fields.flag("lower_order_final", true);
    Ok(Some(match class {
        "DDIMScheduler" => (SamplerConfig::Ddim { eta: 0. }, Ddim),
        "DDPMScheduler" => (SamplerConfig::Ddpm {}, Ddim),
        "PNDMScheduler" => (SamplerConfig::Plms {}, Ddim),
        "EulerDiscreteScheduler" => (SamplerConfig::Euler {}, Euler),
        "EulerAncestralDiscreteScheduler" => (SamplerConfig::EulerA { eta: 1. }, Euler),
        "HeunDiscreteScheduler" => (SamplerConfig::Heun {}, Euler),
        "LMSDiscreteScheduler" => (SamplerConfig::Lms {}, Euler),
        "DPMSolverMultistepScheduler" => {
            let algorithm = fields.get("algorithm_type").and_then(Value::as_str).unwrap_or("dpmsolver++");
            let lower_order_final = lower_order_final()?;
            let sampler = match (algorithm.starts_with("sde"), order()?) {
                (false, 1) => SamplerConfig::Euler {},
                (true, 1) => SamplerConfig::EulerA { eta: 1. },
                (false, _) => SamplerConfig::Dpmpp2m { lower_order_final },
                (true, _) => SamplerConfig::Dpmpp2mSde { eta: 1., lower_order_final },
            };
            (sampler, multistep(fields, schedule.beta_schedule == BetaSchedule::Cosine)?)
        }
        "UniPCMultistepScheduler" => {
            let lower_order_final = lower_order_final()?;
            (SamplerConfig::Unipc { order: order()?, lower_order_final }, multistep(fields, false)?)
        }
        "LCMScheduler" => {
            let (key, total) = ("original_inference_steps", schedule.timesteps);
            let origin = usize::try_from(fields.integer(key, 50)?).ok();
            let origin = origin.filter(|origin| (1..=total).contains(origin));
            let refuse = || wrong(key, &format!("1 to {total}"), fields.get(key));
            (SamplerConfig::Lcm {}, Lcm(origin.ok_or_else(refuse)?))
        }
        _ => return Ok(None),
    }))
}

/// Karras' levels are told as the nearest step of training, but on a cosine schedule; exponential ones never are.
fn multistep(fields: &Fields, cosine: bool) -> Result<SchedulerFamily> {
    let karras = fields.flag("use_karras_sigmas", false)?;
    let floor = if karras { cosine } else { fields.flag("use_exponential_sigmas", false)? };
    Ok(if floor { SchedulerFamily::MultistepFloor } else { SchedulerFamily::Multistep })
}

/// Classes without σ/α of their own, or without a choice of them, have none.
fn sigmas(class: &str, fields: &Fields) -> Result<Option<SigmaSpacing>> {
    if LEADING.contains(&class) || class == "EulerAncestralDiscreteScheduler" {
        return Ok(None);
    }
    Ok(if fields.flag("use_karras_sigmas", false)? {
        Some(SigmaSpacing::Karras)
    } else if fields.flag("use_exponential_sigmas", false)? {
        Some(SigmaSpacing::Exponential)
    } else {
        None
    })
}

/// Each field that has another value than those followed.
fn departures(class: &str, fields: &Fields) -> Vec<String> {
    let departs = |(key, values): &(&str, &str)| {
        let value = fields.get(key)?;
        let values: Vec<Value> = serde_json::from_str(values).expect("a list of JSON");
        (!values.contains(value)).then(|| format!("`{key}` {} is not here", plain(value)))
    };
    let mut found: Vec<String> = followed(class).iter().filter_map(departs).collect();
    found.sort_unstable(); // by field
    found
}

/// A word without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
