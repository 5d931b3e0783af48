//! Noise schedules, ladders of noise levels, and solvers as functions over a denoiser. No neural network.
//!
//! Three words that other places call "scheduler":
//!
//! - a **schedule** ([`NoiseSchedule`]) says how noise grows over the `T` steps of training;
//! - a **ladder** ([`NoiseSchedule::noise_levels`], spaced by a [`Spacing`]) is the list of noise levels a run visits,
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
//! | `ratio` | σ/α | noise over signal: the σ of Karras et al. 2022 and of k-diffusion |
//! | `lambda` | λ = ln(α/σ) | half the log signal-to-noise ratio |
//!
//! Samples are x_t throughout. Solvers that are written for x_t/α (Karras et al., k-diffusion, diffusers' Euler and its
//! kin) are the same sums with other factors, and are here in that form.
//!
//! # Samplers
//!
//! | name | is | asks a step | order | noise |
//! |---|---|---|---|---|
//! | `ddpm` | [`Ddpm`] | 1 | – | η = 1 |
//! | `ddim` | [`Ddim`] | 1 | 1 | η |
//! | `plms` | [`Plms`] | 1, at first 2 | 2 | – |
//! | `euler` | [`Euler`] | 1 | 1 | – |
//! | `euler_a` | [`EulerAncestral`] | 1 | 1 | η |
//! | `heun` | [`Heun`] | 2 | 2 | – |
//! | `dpm2` | [`Dpm2`] | 2 | 2 | – |
//! | `lms` | [`Lms`] | 1 | 4, after its start | – |
//! | `dpm_solver`, `dpmpp_2m` | [`Dpmpp2m`] | 1 | 2 | – |
//! | `dpmpp_2m_sde` | [`Dpmpp2mSde`] | 1 | 2 at η = 0 | η |
//! | `dpmpp_3m_sde` | [`Dpmpp3mSde`] | 1 | 2 at η = 0, at a third of 2M's error | η |
//! | `unipc` | [`UniPc`] | 1 | 3 | – |
//! | `lcm` | [`Lcm`] | 1 | – | all of it |
//!
//! Ho et al. 2020 write α_t for 1 − β_t and Song et al. 2020 (DDIM) write α_t for ᾱ_t; here α is always √ᾱ, as in
//! Kingma et al. 2021, so that α² + σ² = 1.

mod beta;
mod buffers;
mod ddim;
mod ddpm;
mod denoiser;
mod diffusers_spacing;
mod dpm2;
mod dpmpp_2m;
mod dpmpp_2m_sde;
mod dpmpp_3m_sde;
mod euler;
mod euler_ancestral;
mod heun;
mod inpaint_mask;
mod lcm;
mod level;
mod lms;
mod noise_levels;
mod parameterization;
mod plms;
mod sampler;
mod sampler_config;
mod schedule;
mod sigma_table;
mod solver_step;
mod spacing;
mod unipc;

pub use beta::{BetaSchedule, ScheduleConfig, zero_terminal_snr};
pub use ddim::Ddim;
pub use ddpm::{Ddpm, Posterior};
pub use denoiser::{Denoised, Denoiser, DynamicThresholding, StaticThresholding};
pub use diffusers_spacing::{DiffusersSpacing, SchedulerFamily, SigmaSpacing, TimestepSpacing};
pub use dpm2::Dpm2;
pub use dpmpp_2m::Dpmpp2m;
pub use dpmpp_2m_sde::Dpmpp2mSde;
pub use dpmpp_3m_sde::Dpmpp3mSde;
pub use euler::Euler;
pub use euler_ancestral::EulerAncestral;
pub use heun::Heun;
pub use inpaint_mask::{InpaintMask, stochastic_encode};
pub use lcm::Lcm;
pub use level::{BatchLevel, NoiseLevel};
pub use lms::Lms;
pub use parameterization::Parameterization;
pub use plms::Plms;
pub use sampler::{Sampler, SamplingStep};
pub use sampler_config::SamplerConfig;
pub use schedule::NoiseSchedule;
pub use sigma_table::SigmaTable;
pub use solver_step::{SamplerRun, SolverStep};
pub use spacing::Spacing;
pub use unipc::UniPc;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
