//! AUTOMATIC1111's names of samplers and schedulers, and ours.

use ldm_schedulers::{SamplerConfig, Spacing};

use super::body::WebUiError;

/// A sampler under the web UI's name.
#[derive(Debug)]
pub(crate) struct SamplerName {
    /// Its name.
    pub(crate) theirs: &'static str,
    /// Ours.
    pub(crate) ours: &'static str,
    /// Names of k-diffusion, which old clients send.
    pub(crate) aliases: &'static [&'static str],
    /// True for samplers of timesteps, which use no scheduler.
    own_timesteps: bool,
}

const fn sampler(theirs: &'static str, ours: &'static str, aliases: &'static [&'static str]) -> SamplerName {
    SamplerName { theirs, ours, aliases, own_timesteps: false }
}

const fn timesteps(
    theirs: &'static str,
    ours: &'static str,
    aliases: &'static [&'static str],
) -> SamplerName {
    SamplerName { own_timesteps: true, ..sampler(theirs, ours, aliases) }
}

/// The samplers, of which Euler is the default.
pub(crate) const SAMPLERS: [SamplerName; 14] = [
    sampler("DPM++ 2M", "dpmpp_2m", &["k_dpmpp_2m"]),
    sampler("DPM++ 2M SDE", "dpmpp_2m_sde", &["k_dpmpp_2m_sde"]),
    sampler("DPM++ 3M SDE", "dpmpp_3m_sde", &["k_dpmpp_3m_sde"]),
    sampler("Euler a", "euler_a", &["k_euler_a", "k_euler_ancestral", "euler_ancestral"]),
    sampler("Euler", "euler", &["k_euler"]),
    sampler("LMS", "lms", &["k_lms"]),
    sampler("Heun", "heun", &["k_heun"]),
    sampler("DPM2", "dpm2", &["k_dpm_2", "dpm_2"]),
    sampler("DPM-Solver", "dpm_solver", &[]),
    timesteps("DDIM", "ddim", &[]),
    timesteps("PLMS", "plms", &[]),
    timesteps("UniPC", "unipc", &["uni_pc"]),
    timesteps("LCM", "lcm", &["k_lcm"]),
    timesteps("DDPM", "ddpm", &[]),
];

/// A scheduler under the web UI's name.
#[derive(Debug)]
pub(crate) struct SchedulerName {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// ρ, where it has one.
    pub(crate) rho: Option<f64>,
    /// Our spacing; none is that of the sampler.
    pub(crate) spacing: Option<&'static str>,
}

const fn scheduler(name: &'static str, label: &'static str, spacing: Option<&'static str>) -> SchedulerName {
    SchedulerName { name, label, aliases: &[], rho: None, spacing }
}

/// The schedulers. With ρ = 1, its default, the polyexponential one is the exponential one. k-diffusion's own levels are
/// `uniform`, which `normal` repeats.
pub(crate) const SCHEDULERS: [SchedulerName; 10] = [
    scheduler("automatic", "Automatic", None),
    scheduler("uniform", "Uniform", Some("linspace")),
    SchedulerName { rho: Some(7.), ..scheduler("karras", "Karras", Some("karras")) },
    scheduler("exponential", "Exponential", Some("exponential")),
    SchedulerName { rho: Some(1.), ..scheduler("polyexponential", "Polyexponential", Some("exponential")) },
    SchedulerName {
        aliases: &["SGMUniform"],
        ..scheduler("sgm_uniform", "SGM Uniform", Some("sgm_uniform"))
    },
    scheduler("align_your_steps", "Align Your Steps", Some("align_your_steps")),
    scheduler("simple", "Simple", Some("trailing")),
    scheduler("normal", "Normal", Some("linspace")),
    scheduler("ddim", "DDIM", Some("uniform")),
];

/// A sampler with the spacing of its timesteps.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) sampler: &'static SamplerName,
    pub(crate) spacing: Option<&'static str>,
    /// Settings that were not followed.
    pub(crate) note: Option<String>,
}

/// The sampler of a name, which may end in that of a scheduler, and of a scheduler next to it.
///
/// # Errors
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) with the known names.
pub(crate) fn choose(name: &str, scheduler: Option<&str>) -> Result<Chosen, WebUiError> {
    let (sampler, word) = find_sampler(name.trim()).ok_or_else(|| {
        WebUiError::unknown("Sampler", &SAMPLERS.each_ref().map(|sampler| sampler.theirs), name)
    })?;
    let given = scheduler.map(str::trim).filter(|name| !name.is_empty()).map(|name| {
        let known = || SCHEDULERS.each_ref().map(|scheduler| scheduler.label);
        find_scheduler(name).ok_or_else(|| WebUiError::unknown("Scheduler", &known(), name))
    });
    let given = given.transpose()?.filter(|scheduler| scheduler.spacing.is_some()).or(word);
    let unused = given.filter(|scheduler| sampler.own_timesteps && scheduler.spacing.is_some());
    let note =
        unused.map(|scheduler| format!("scheduler: {} is of no use for {}", scheduler.label, sampler.theirs));
    let spacing = given.and_then(|scheduler| scheduler.spacing).filter(|_| !sampler.own_timesteps);
    Ok(Chosen { sampler, spacing, note })
}

fn find_sampler(name: &str) -> Option<(&'static SamplerName, Option<&'static SchedulerName>)> {
    let exact = |name: &str| {
        SAMPLERS.iter().find(|sampler| {
            [sampler.theirs, sampler.ours]
                .iter()
                .chain(sampler.aliases)
                .any(|known| known.eq_ignore_ascii_case(name))
        })
    };
    if let Some(sampler) = exact(name) {
        return Some((sampler, None));
    }
    // "DPM++ 2M Karras", of versions that had one list.
    SCHEDULERS.iter().filter(|scheduler| scheduler.spacing.is_some()).find_map(|scheduler| {
        let at = name.len().checked_sub(scheduler.label.len())?;
        let (head, word) = (name.get(..at)?, name.get(at..)?);
        let ends = word.eq_ignore_ascii_case(scheduler.label) && head.ends_with(' ');
        ends.then(|| exact(head.trim_end())).flatten().map(|sampler| (sampler, Some(scheduler)))
    })
}

fn find_scheduler(name: &str) -> Option<&'static SchedulerName> {
    SCHEDULERS.iter().find(|scheduler| {
        [scheduler.name, scheduler.label]
            .iter()
            .chain(scheduler.aliases)
            .any(|known| known.eq_ignore_ascii_case(name))
    })
}

/// A `parameters` text under the web UI's names, as its clients parse it. Ours of the spacing stays: not every spacing has
/// a name there.
pub(crate) fn renamed(text: &str) -> String {
    let (prompt, fields) = text.split_at(text.rfind('\n').map_or(0, |end| end + 1));
    let Some((head, rest)) = fields.split_once(", Sampler: ") else { return text.to_owned() };
    let (sampler, rest) = rest.split_at(rest.find(", ").unwrap_or(rest.len()));
    let spacing = rest.split(", ").find_map(|field| field.strip_prefix("Spacing: "));
    let scheduler = SCHEDULERS.iter().find(|known| known.spacing.is_some() && known.spacing == spacing);
    let schedule = scheduler.map_or(String::new(), |known| format!(", Schedule type: {}", known.label));
    format!("{prompt}{head}, Sampler: {}{schedule}{rest}", theirs(sampler))
}

/// The web UI's name of our sampler.
pub(crate) fn theirs(ours: &str) -> &str {
    SAMPLERS.iter().find(|sampler| sampler.ours == ours).map_or(ours, |sampler| sampler.theirs)
}

impl SamplerName {
    /// The sampler.
    pub(crate) fn config(&self) -> SamplerConfig {
        self.ours.parse().expect("a name of the table, which a test compares")
    }

    /// The scheduler that `automatic` is for it.
    pub(crate) fn automatic(&self) -> Option<&'static str> {
        let spacing: Spacing = self.config().spacing();
        let spacing = spacing.to_string();
        let found = SCHEDULERS.iter().find(|scheduler| scheduler.spacing == Some(&spacing));
        found.filter(|_| !self.own_timesteps).map(|scheduler| scheduler.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sampler_of_ours_has_a_name_of_theirs() {
        let mut ours: Vec<_> = SAMPLERS.iter().map(|sampler| sampler.ours).collect();
        let mut all = SamplerConfig::NAMES.to_vec();
        ours.sort_unstable();
        all.sort_unstable();
        assert_eq!(ours, all);
        for spacing in SCHEDULERS.iter().filter_map(|scheduler| scheduler.spacing) {
            assert!(Spacing::NAMES.contains(&spacing), "{spacing}");
        }
    }

    #[test]
    fn texts_have_the_names_of_the_web_ui() {
        let text = "a, Sampler: b\nNegative prompt: c\nSteps: 4, Sampler: euler_a, CFG scale: 3";
        let renamed_text = "a, Sampler: b\nNegative prompt: c\nSteps: 4, Sampler: Euler a, CFG scale: 3";
        assert_eq!(renamed(text), renamed_text);
        assert_eq!(
            renamed("Steps: 4, Sampler: dpmpp_2m, Seed: 1, Spacing: karras, Version: ldm 1"),
            "Steps: 4, Sampler: DPM++ 2M, Schedule type: Karras, Seed: 1, Spacing: karras, Version: ldm 1"
        );
        assert_eq!(renamed("a photo"), "a photo");
        for SamplerName { theirs, ours, .. } in &SAMPLERS {
            let text = renamed(&format!("Steps: 4, Sampler: {ours}"));
            assert_eq!(text, format!("Steps: 4, Sampler: {theirs}"));
            assert_eq!(ldm::PngParameters::parse(&text).unwrap().sampler(), (Some(*ours), None));
        }
    }

    #[test]
    fn names_of_clients_are_understood() {
        for (name, scheduler, sampler, spacing) in [
            ("Euler a", None, "euler_a", None),
            ("euler A", Some("automatic"), "euler_a", None),
            ("k_euler_ancestral", Some("Karras"), "euler_a", Some("karras")),
            ("DPM++ 2M Karras", None, "dpmpp_2m", Some("karras")),
            ("DPM++ 2M karras", Some("Automatic"), "dpmpp_2m", Some("karras")),
            ("DPM++ 2M", Some("SGM Uniform"), "dpmpp_2m", Some("sgm_uniform")),
            ("DPM++ 2M SDE Exponential", None, "dpmpp_2m_sde", Some("exponential")),
            ("DPM++ 3M SDE", Some("sgmuniform"), "dpmpp_3m_sde", Some("sgm_uniform")),
            ("DDIM", Some("karras"), "ddim", None),
            ("dpmpp_2m", Some(""), "dpmpp_2m", None),
        ] {
            let chosen = choose(name, scheduler).unwrap();
            assert_eq!((chosen.sampler.ours, chosen.spacing), (sampler, spacing), "{name}, {scheduler:?}");
        }
        assert!(choose("DDIM", Some("karras")).unwrap().note.is_some());
        for (name, scheduler) in [
            ("DPM adaptive", None),
            ("", None),
            ("é Karras", None),
            ("Karras", None),
            ("Euler", Some("beta")),
        ] {
            assert!(choose(name, scheduler).is_err(), "{name}");
        }
    }
}
