//! Noise schedules, noise levels, and samplers as functions of a denoiser. No neural network.
//!
//! Other libraries call three things "scheduler":
//!
//! - a **schedule** ([`NoiseSchedule`]): β and ᾱ of the `T` timesteps of training;
//! - the **noise levels** of a run ([`NoiseSchedule::noise_levels`]), chosen by a [`Spacing`], noisiest first; one more than
//!   the run has steps, since the last step ends at a level too;
//! - a **sampler** ([`Sampler`]): the solver that goes from one level to the next. It is a function of a [`Denoiser`], and
//!   knows neither networks, nor guidance, nor the network's [`Parameterization`].
//!
//! [`SamplerConfig::plan`] brings the three together: [`SamplerPlan::sample`] generates a sample from noise.
//!
//! # Notation
//!
//! | here | symbol | meaning |
//! |---|---|---|
//! | `t` | t | timestep of training, `0..T`; an input of the network |
//! | `beta` | β_t | variance added at timestep t |
//! | `alpha_bar` | ᾱ_t | ∏ (1 − β_s), s ≤ t; the variance of the signal |
//! | `alpha` | α = √ᾱ | factor of the clean sample: x_t = α·x_0 + σ·ε |
//! | `sigma` | σ = √(1 − ᾱ) | factor of the noise |
//! | `noise_to_signal` | σ/α | the σ of Karras et al. 2022 and of k-diffusion |
//! | `lambda` | λ = ln(α/σ) | half the log signal-to-noise ratio |
//!
//! Samples are x_t throughout. Solvers that are written for x_t/α (Karras et al., k-diffusion, diffusers' Euler and related
//! ones) are the same sums with other factors, and are here in that form.
//!
//! # Samplers
//!
//! | name | type | NFE per step | order | noise |
//! |---|---|---|---|---|
//! | `ddpm` | [`Ddpm`] | 1 | – | η = 1 |
//! | `ddim` | [`Ddim`] | 1 | 1 | η |
//! | `plms` | [`Plms`] | 1, the first step 2 | 2 | – |
//! | `euler` | [`Euler`] | 1 | 1 | – |
//! | `euler_a` | [`EulerAncestral`] | 1 | 1 | η |
//! | `heun` | [`Heun`] | 2 | 2 | – |
//! | `dpm2` | [`Dpm2`] | 2 | 2 | – |
//! | `lms` | [`Lms`] | 1 | 4, after its start | – |
//! | `dpm_solver`, `dpmpp_2m` | [`Dpmpp2m`] | 1 | 2 | – |
//! | `dpmpp_2m_sde` | [`Dpmpp2mSde`] | 1 | 2 at η = 0 | η |
//! | `dpmpp_3m_sde` | [`Dpmpp3mSde`] | 1 | 2 at η = 0, a third of 2M's error | η |
//! | `unipc` | [`UniPc`] | 1 | 3 | – |
//! | `lcm` | [`Lcm`] | 1 | – | all of it |
//!
//! Ho et al. 2020 write α_t for 1 − β_t and Song et al. 2020 (DDIM) write α_t for ᾱ_t; here α is always √ᾱ, as in
//! Kingma et al. 2021, so that α² + σ² = 1.
//!
//! A new sampler is one file, with a type that implements [`Sampler`] and states its [`SamplerProperties`], and one line in
//! the table of `sampler_config.rs`.

mod align_your_steps;
mod ancestral_noise;
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
mod lms;
mod noise_level;
mod noise_levels;
mod noise_schedule;
mod parameterization;
mod plms;
mod progressive_code;
mod sampler;
mod sampler_config;
mod sampler_plan;
mod sampler_properties;
mod sampler_run;
mod schedule_config;
mod sigma_table;
mod spacing;
mod unipc;

pub use ancestral_noise::AncestralNoise;
pub use ddim::Ddim;
pub use ddpm::{Ddpm, ForwardPosterior};
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
pub use lms::Lms;
pub use noise_level::{BatchLevel, NoiseLevel};
pub use noise_schedule::NoiseSchedule;
pub use parameterization::Parameterization;
pub use plms::Plms;
pub use progressive_code::{CodedLevel, progressive_code};
pub use sampler::{Sampler, SamplingStep};
pub use sampler_config::SamplerConfig;
pub use sampler_plan::SamplerPlan;
pub use sampler_properties::SamplerProperties;
pub use sampler_run::{BlendOrder, SamplerRun, SolverStep, derivative, linear_combination};
pub use schedule_config::{BetaSchedule, ScheduleConfig, zero_terminal_snr};
pub use sigma_table::SigmaTable;
pub use spacing::Spacing;
pub use unipc::UniPc;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
