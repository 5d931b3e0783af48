//! Align Your Steps: noise levels optimized for Stable Diffusion v1.

use ldm_core::{Error, Result};

/// σ/α of ten steps, the noisiest first, and of the level they end at, which is left out here as in diffusers and ComfyUI.
///
/// Sabour, Fidler & Kreis 2024, arXiv:2404.14507; <https://research.nvidia.com/labs/toronto-ai/AlignYourSteps/howto.html>.
const RATIOS: [f64; 11] = [
    14.6146412293,
    6.4745760956,
    3.8636745985,
    2.6946151520,
    1.8841921177,
    1.3943805092,
    0.9642583904,
    0.6523686016,
    0.3977456272,
    0.1515232662,
    0.0291671582,
];

/// σ/α of `steps` steps on a schedule that begins with `noisiest`: those of ten, interpolated linearly in the logarithm.
///
/// # Errors
/// When the schedule is not that of Stable Diffusion v1.
pub(crate) fn ratios(noisiest: f64, steps: usize) -> Result<impl Iterator<Item = f64>> {
    if (noisiest / RATIOS[0] - 1.).abs() > 0.01 {
        return Err(Error::invalid(format!(
            "spacing align_your_steps: expected the noise schedule of Stable Diffusion v1, with a noise-to-signal ratio of up \
             to {:.1}, got one of up to {noisiest:.1}",
            RATIOS[0]
        )));
    }
    Ok((0..steps).map(move |index| {
        let place = (RATIOS.len() - 1) as f64 * index as f64 / steps as f64;
        let (low, part) = (place as usize, place.fract());
        let [a, b] = [RATIOS[low], RATIOS[low + 1]].map(f64::ln);
        (a + (b - a) * part).exp()
    }))
}

#[cfg(test)]
mod tests {
    use crate::{NoiseSchedule, ScheduleConfig, Spacing};

    fn timesteps(steps: usize) -> Vec<f64> {
        let schedule = NoiseSchedule::new(&ScheduleConfig {
            linear_start: 0.00085,
            linear_end: 0.012,
            ..ScheduleConfig::default()
        });
        let levels = schedule.unwrap().noise_levels(&Spacing::AlignYourSteps, steps).unwrap();
        levels.iter().map(|level| level.t).collect()
    }

    #[test]
    fn ten_steps_are_the_timesteps_of_diffusers() {
        // AysSchedules["StableDiffusionTimesteps"] of diffusers 0.42.1, rounded there.
        let published = [999., 850., 736., 645., 545., 455., 343., 233., 124., 24.];
        for (t, published) in timesteps(10).into_iter().zip(published) {
            assert!((t - published).abs() < 1., "{t}, published {published}");
        }
    }

    #[test]
    fn every_second_of_twenty_steps_is_one_of_ten() {
        let (ten, twenty) = (timesteps(10), timesteps(20));
        assert_eq!(twenty.len(), 21, "and the clean end");
        for (t, of_twenty) in ten.iter().take(10).zip(twenty.iter().step_by(2)) {
            assert!((t - of_twenty).abs() < 1e-9);
        }
        assert!(twenty.windows(2).all(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn other_schedules_are_refused() {
        let schedule = NoiseSchedule::new(&ScheduleConfig { linear_end: 0.02, ..ScheduleConfig::default() });
        let error = schedule.unwrap().noise_levels(&Spacing::AlignYourSteps, 10).unwrap_err().to_string();
        assert!(
            error.starts_with("spacing align_your_steps: expected the noise schedule of Stable Diffusion v1"),
            "{error}"
        );
    }
}
