//! Noise levels between timesteps.

use crate::{NoiseLevel, NoiseSchedule};

/// The noise levels of a schedule, for interpolation between them.
#[derive(Debug, Clone)]
pub struct SigmaTable(Vec<NoiseLevel>);

/// The quantity interpolated linearly between two timesteps.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interpolate {
    /// σ/α (diffusers).
    Sigma,
    /// ln(σ/α) (k-diffusion).
    LogSigma,
    /// ln α (DPM-Solver).
    LogAlpha,
}

impl SigmaTable {
    /// α in place of 0 where a schedule ends in pure noise: σ/α is 4096 there, as in diffusers (ᾱ = 2⁻²⁴).
    const SMALLEST_ALPHA: f64 = 1. / 4096.;

    /// The levels of `schedule`.
    pub fn new(schedule: &NoiseSchedule) -> Self {
        Self((0..schedule.timesteps()).map(|t| schedule.level(t)).collect())
    }

    /// The level itself, or for pure noise one with a finite σ/α.
    pub(crate) fn finite(level: NoiseLevel) -> NoiseLevel {
        let alpha = Self::SMALLEST_ALPHA;
        if level.alpha > 0. {
            level
        } else {
            NoiseLevel { alpha, sigma: (1. - alpha * alpha).sqrt(), ..level }
        }
    }

    /// The last timestep.
    pub(crate) fn last(&self) -> f64 {
        (self.0.len() - 1) as f64
    }

    /// The level of timestep `t`, with a finite σ/α.
    fn finite_level(&self, t: usize) -> NoiseLevel {
        Self::finite(self.0[t])
    }

    /// σ/α at both ends of the schedule, the noisiest first.
    pub(crate) fn ends(&self) -> [f64; 2] {
        [self.finite_level(self.0.len() - 1).noise_to_signal(), self.finite_level(0).noise_to_signal()]
    }

    /// The level with σ/α = `ratio`; its timestep is interpolated linearly in ln(σ/α) and clamped to the schedule.
    ///
    /// k-diffusion `external.py`, `sigma_to_t`.
    pub fn level(&self, ratio: f64) -> NoiseLevel {
        let above =
            self.0.partition_point(|level| level.noise_to_signal() <= ratio).clamp(1, self.0.len() - 1);
        let [low, high] = [above - 1, above].map(|t| self.finite_level(t).noise_to_signal().ln());
        let part = ((ratio.ln() - low) / (high - low)).clamp(0., 1.);
        NoiseLevel::from_noise_to_signal((above - 1) as f64 + part, ratio)
    }

    /// The level at `t`, which may lie between two timesteps and is clamped to the schedule.
    pub(crate) fn at(&self, t: f64, interpolate: Interpolate) -> NoiseLevel {
        let t = t.clamp(0., self.last());
        let (low, part) = (t as usize, t.fract());
        if part == 0. {
            return self.0[low];
        }
        let between = |value: fn(NoiseLevel) -> f64| {
            (1. - part) * value(self.finite_level(low)) + part * value(self.finite_level(low + 1))
        };
        match interpolate {
            Interpolate::Sigma => NoiseLevel::from_noise_to_signal(t, between(NoiseLevel::noise_to_signal)),
            Interpolate::LogSigma => {
                NoiseLevel::from_noise_to_signal(t, (-between(NoiseLevel::lambda)).exp())
            }
            Interpolate::LogAlpha => {
                let alpha = between(|level| level.alpha.ln()).exp();
                NoiseLevel { t, alpha, sigma: (1. - alpha * alpha).sqrt() }
            }
        }
    }
}
