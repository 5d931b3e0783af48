//! Samplers and spacings of diffusers' `scheduler_config.json`.

use ldm_core::Result;
use ldm_core::diffusers::{Fields, wrong};
use ldm_schedulers::{
    BetaSchedule, DiffusersSpacing, SamplerConfig, ScheduleConfig, SchedulerFamily, SigmaSpacing, Spacing,
    TimestepSpacing,
};
use serde_json::Value;

/// The sampler and spacing of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SamplingPlan {
    /// The nearest available solver.
    pub(crate) sampler: SamplerConfig,
    /// The noise levels it visits.
    pub(crate) spacing: Spacing,
    /// A message about settings of the file that are not followed.
    pub(crate) note: Option<String>,
}

/// Classes whose default `timestep_spacing` is `leading`; that of the others is `linspace`.
const LEADING: [&str; 4] = ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler"];

/// The supported values of a class's fields, as JSON; the first is the default of absent and null fields.
fn supported(class: &str) -> &'static [(&'static str, &'static str)] {
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
    /// Reads the fields of `class` about sampling.
    pub(crate) fn read(class: &str, fields: &Fields, schedule: &ScheduleConfig) -> Result<Self> {
        let Some((sampler, family)) = solver(class, fields, schedule)? else {
            let sampler = SamplerConfig::Ddim { eta: 0. };
            let note = format!("{class} is not supported; sampling with {}", sampler.name());
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
        let mut unsupported = unsupported(class, fields);
        if family == SchedulerFamily::Ddim && times == TimestepSpacing::Linspace {
            unsupported.push(format!(
                "`timestep_spacing` linspace: unlike in {class}, each step ends at the next timestep"
            ));
        }
        if class == "PNDMScheduler" && !fields.flag("skip_prk_steps", false)? {
            unsupported.push("`skip_prk_steps` false is not supported; the first step takes 2 NFE".into());
        }
        if class == "PNDMScheduler" && fields.get("prediction_type").is_some_and(|of| of == "v_prediction") {
            unsupported.push(
                "`prediction_type` v_prediction: PNDMScheduler averages v, here eps is averaged".into(),
            );
        }
        if !to_clean && fields.flag("euler_at_final", false)? {
            unsupported.push("`euler_at_final` true is not supported".into());
        }
        let note = (!unsupported.is_empty()).then(|| unsupported.join("; "));
        Ok(Self { sampler, spacing: Spacing::Diffusers(spacing), note })
    }
}

/// The solver of a class and its family; `None` for an unsupported class.
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

/// Multistep schedulers round Karras' levels to the nearest timestep, except on a cosine schedule, and exponential ones
/// never.
fn multistep(fields: &Fields, cosine: bool) -> Result<SchedulerFamily> {
    let karras = fields.flag("use_karras_sigmas", false)?;
    let floor = if karras { cosine } else { fields.flag("use_exponential_sigmas", false)? };
    Ok(if floor { SchedulerFamily::MultistepFloor } else { SchedulerFamily::Multistep })
}

/// The spacing in σ/α; none for classes without one, and by default.
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

/// The fields with unsupported values.
fn unsupported(class: &str, fields: &Fields) -> Vec<String> {
    let check = |(key, values): &(&str, &str)| {
        let value = fields.get(key)?;
        let values: Vec<Value> = serde_json::from_str(values).expect("a list of JSON");
        (!values.contains(value)).then(|| format!("`{key}` {} is not supported", plain(value)))
    };
    let mut found: Vec<String> = supported(class).iter().filter_map(check).collect();
    found.sort_unstable(); // by field
    found
}

/// A string without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
