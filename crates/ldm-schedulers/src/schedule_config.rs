//! Noise schedule configs: the four β schedules of CompVis.

use std::f64::consts::FRAC_PI_2;

use ldm_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// β over the timesteps of training.
///
/// CompVis `diffusionmodules/util.py:21` `make_beta_schedule`, whose names these are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// **Linear in √β**, in spite of the name (diffusers: `scaled_linear`).
    #[default]
    Linear,
    /// ᾱ falls as a squared cosine (Nichol & Dhariwal 2021, eq. 17); β is clipped to at most 0.999.
    Cosine,
    /// Linear in β (Ho et al. 2020; diffusers: `linear`).
    SqrtLinear,
    /// The square root of [`BetaSchedule::SqrtLinear`].
    Sqrt,
}

/// The config of a noise schedule, under CompVis' names (`ddpm.py:43`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The form of β.
    pub beta_schedule: BetaSchedule,
    /// `T`, the number of timesteps.
    pub timesteps: usize,
    /// First β of every schedule but the cosine.
    pub linear_start: f64,
    /// Last β of every schedule but the cosine (before the root of [`BetaSchedule::Sqrt`]).
    pub linear_end: f64,
    /// Offset of the cosine schedule, which keeps its first β from being 0.
    pub cosine_s: f64,
    /// β itself, `timesteps` values, in place of the fields above.
    pub given_betas: Option<Vec<f64>>,
    /// Fraction of β in the variance of the reverse step, the rest being the posterior's: in `[0, 1]`.
    pub v_posterior: f64,
    /// Shifts and scales √ᾱ so that the last level is pure noise ([`zero_terminal_snr`]).
    pub zero_terminal_snr: bool,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            beta_schedule: BetaSchedule::Linear,
            timesteps: 1000,
            linear_start: 1e-4,
            linear_end: 2e-2,
            cosine_s: 8e-3,
            given_betas: None,
            v_posterior: 0.,
            zero_terminal_snr: false,
        }
    }
}

/// The largest number of timesteps, a thousand times that of published models.
const MAX_TIMESTEPS: usize = 1_000_000;

impl ScheduleConfig {
    /// β_0 … β_{T−1}, each in `(0, 1)`; with `zero_terminal_snr` the last is 1.
    ///
    /// # Errors
    /// When the timesteps are not 2 to a million, when `cosine_s` is not finite, when `given_betas` has another length, when
    /// a β is not in `(0, 1)`, and when `v_posterior` is not in `[0, 1]`.
    pub(crate) fn betas(&self) -> Result<Vec<f64>> {
        let (count, start, end) = (self.timesteps, self.linear_start, self.linear_end);
        if !(2..=MAX_TIMESTEPS).contains(&count) {
            return Err(Error::invalid(format!("timesteps: expected 2 to {MAX_TIMESTEPS}, got {count}")));
        }
        if !self.cosine_s.is_finite() {
            let got = self.cosine_s;
            return Err(Error::invalid(format!("cosine_s: expected a finite number, got {got}")));
        }
        if !(0. ..=1.).contains(&self.v_posterior) {
            let got = self.v_posterior;
            return Err(Error::invalid(format!("v_posterior: expected a number in [0, 1], got {got}")));
        }
        let (name, betas) = match &self.given_betas {
            Some(given) if given.len() != count => {
                let got = given.len();
                return Err(Error::invalid(format!(
                    "given_betas: expected {count} values (timesteps), got {got}"
                )));
            }
            Some(given) => ("given_betas", given.clone()),
            None => match self.beta_schedule {
                BetaSchedule::Linear => {
                    ("linear", linspace(start.sqrt(), end.sqrt(), count).map(|root| root * root).collect())
                }
                BetaSchedule::Cosine => ("cosine", cosine(count, self.cosine_s)),
                BetaSchedule::SqrtLinear => ("sqrt_linear", linspace(start, end, count).collect()),
                BetaSchedule::Sqrt => ("sqrt", linspace(start, end, count).map(f64::sqrt).collect()),
            },
        };
        // Written so that NaN is an error too.
        match betas.iter().position(|beta| !(*beta > 0. && *beta < 1.)) {
            Some(t) => Err(Error::invalid(format!(
                "{name}: expected every beta between 0 and 1, got {} at timestep {t}",
                betas[t]
            ))),
            None if self.zero_terminal_snr => Ok(zero_terminal_snr(&betas)),
            None => Ok(betas),
        }
    }
}

/// The schedule with pure noise at its last level: √ᾱ is shifted to 0 there and scaled to keep its first value. The last
/// β is 1.
///
/// Lin et al. 2023 (arXiv:2305.08891), algorithm 1. Its models predict v or x_0: at pure noise ε carries no information.
pub fn zero_terminal_snr(betas: &[f64]) -> Vec<f64> {
    let roots: Vec<f64> = betas
        .iter()
        .scan(1., |product, beta| {
            *product *= 1. - beta;
            Some(f64::sqrt(*product))
        })
        .collect();
    let (Some(first), Some(last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let scale = first / (first - last);
    let alphas_bar = roots.iter().map(|root| ((root - last) * scale).powi(2));
    let before = std::iter::once(1.).chain(alphas_bar.clone());
    alphas_bar.zip(before).map(|(now, before)| 1. - now / before).collect()
}

/// `torch.linspace`: counted from the nearer end, so that both ends are exact.
fn linspace(start: f64, end: f64, count: usize) -> impl Iterator<Item = f64> {
    let step = (end - start) / (count - 1) as f64;
    (0..count).map(
        move |i| {
            if i < count / 2 { start + step * i as f64 } else { end - step * (count - 1 - i) as f64 }
        },
    )
}

fn cosine(count: usize, offset: f64) -> Vec<f64> {
    // Divided as f64: in integers every quotient is 0, and so is every β except the last.
    let alpha_bar = |i: usize| {
        let angle = (i as f64 / count as f64 + offset) / (1. + offset) * FRAC_PI_2;
        angle.cos().powi(2)
    };
    (0..count).map(|i| (1. - alpha_bar(i + 1) / alpha_bar(i)).clamp(0., 0.999)).collect()
}
