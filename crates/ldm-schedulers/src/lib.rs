//! Noise schedules, ladders of noise levels, and solvers as functions over a denoiser. No neural network.
//!
//! Three words that other places call "scheduler":
//!
//! - a **schedule** ([`NoiseSchedule`]) says how noise grows over the `T` steps of training;
//! - a **ladder** ([`NoiseSchedule::ladder`], spaced by a [`Spacing`]) is the list of noise levels a run visits,
//!   noisiest first; it holds one level more than the run takes steps: the level the last step ends at;
//! - a **sampler** ([`Sampler`]) is the solver that walks down a ladder. It is a function over a [`Denoiser`],
//!   and knows neither networks, nor guidance, nor what the network predicts ([`Parameterization`]).
//!
//! # Notation
//!
//! | here | symbol | is |
//! |---|---|---|
//! | `t` | t | step of training, `0..T`; what the network is told |
//! | `beta` | β_t | variance added at step t |
//! | `alpha_bar` | ᾱ_t | ∏ (1 − β_s), s ≤ t; how much of the signal's variance is left |
//! | `alpha` | α = √ᾱ | factor of the clean sample: x_t = α·x_0 + σ·ε |
//! | `sigma` | σ = √(1 − ᾱ) | factor of the noise |
//! | – | λ = ln(α/σ) | half the log signal-to-noise ratio |
//!
//! Ho et al. 2020 write α_t for 1 − β_t and Song et al. 2020 (DDIM) write α_t for ᾱ_t; here α is always √ᾱ, as in
//! Kingma et al. 2021, so that α² + σ² = 1.

mod beta;
mod buffers;
mod ddim;
mod ddpm;
mod denoiser;
mod level;
mod parameterization;
mod sampler;
mod schedule;
mod spacing;

pub use beta::{BetaSchedule, ScheduleConfig};
pub use ddim::Ddim;
pub use ddpm::{Ddpm, Posterior};
pub use denoiser::{Clamped, Denoised, Denoiser};
pub use level::{BatchLevel, NoiseLevel};
pub use parameterization::Parameterization;
pub use sampler::{Sampler, SamplerConfig, Step};
pub use schedule::NoiseSchedule;
pub use spacing::Spacing;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
