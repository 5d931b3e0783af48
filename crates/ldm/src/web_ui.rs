//! Names of AUTOMATIC1111's web UI in `parameters`.

use ldm_schedulers::SamplerConfig;

/// Our name of a sampler, and the spacing that the web UI names with it or next to it.
pub(crate) fn sampler_of(name: &str, schedule: Option<&str>) -> (Option<&'static str>, Option<&'static str>) {
    const SPACINGS: [(&str, &str); 4] = [
        ("Karras", "karras"),
        ("Exponential", "exponential"),
        ("SGM Uniform", "sgm_uniform"),
        ("Align Your Steps", "align_your_steps"),
    ];
    let joined =
        SPACINGS.iter().find_map(|(theirs, ours)| Some((name.strip_suffix(theirs)?.trim_end(), *ours)));
    let next_to = SPACINGS.iter().find(|(theirs, _)| schedule == Some(*theirs)).map(|(_, ours)| *ours);
    let (name, spacing) = joined.map_or((name, next_to), |(name, spacing)| (name, Some(spacing)));
    let plain = name.to_lowercase().replace("++", "pp").replace([' ', '-'], "_");
    (SamplerConfig::NAMES.into_iter().find(|known| *known == plain), spacing)
}

/// Splits `a:1 b c:0.5` after each strength; names may contain spaces.
pub(crate) fn loras(text: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    for word in text.split(' ') {
        let last = names.last_mut().expect("at least one");
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(word);
        if word.rsplit_once(':').is_some_and(|(_, strength)| strength.parse::<f64>().is_ok()) {
            names.push(String::new());
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_have_our_names() {
        for (theirs, schedule, want) in [
            ("DPM++ 2M Karras", None, (Some("dpmpp_2m"), Some("karras"))),
            ("DPM++ 2M", Some("Exponential"), (Some("dpmpp_2m"), Some("exponential"))),
            ("Euler a", Some("Automatic"), (Some("euler_a"), None)),
            ("DDIM", None, (Some("ddim"), None)),
            ("ddim", None, (Some("ddim"), None)),
            ("DPM adaptive", None, (None, None)),
        ] {
            assert_eq!(sampler_of(theirs, schedule), want, "{theirs}");
        }
    }

    #[test]
    fn loras_end_in_their_strength() {
        assert_eq!(loras("style:1 my face:0.5"), ["style:1", "my face:0.5"]);
        assert_eq!(loras(""), [""; 0]);
    }
}
