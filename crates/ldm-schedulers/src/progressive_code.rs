//! Progressive coding: the rate and the distortion of a diffusion model (Ho et al. 2020, §4.3).
//!
//! A sender transmits x_t of the noisiest level, then of each less noisy one. By the bound each transfer costs a KL
//! divergence of two Gaussians with the variance of the forward posterior, and at any level a receiver can predict the
//! clean sample.

use ldm_core::NoiseSource;
use tch::{Kind, Tensor};

use crate::{Denoiser, NoiseLevel};

/// A level of a progressive code.
#[derive(Debug)]
pub struct CodedLevel {
    /// The level.
    pub at: NoiseLevel,
    /// Nats per sample up to this level, `[B]` f64: the terms L_T + … + L_t of the bound.
    pub nats: Tensor,
    /// The clean sample predicted at this level, `[B, C, h, w]`.
    pub x0: Tensor,
}

/// Codes clean samples progressively over `levels`, noisiest first; calls `observe` at each level with its place in the
/// list.
///
/// Over all timesteps of a schedule the nats are the terms of the variational bound for the variance
/// β̃_t (Ho et al. 2020, eq. 5), but L_0, which depends on the decoder of the last level; over fewer levels they are those of
/// the bound of a model with these levels alone, which is larger.
///
/// # Shapes
/// - `x0`: `[B, C, h, w]`
///
/// # Panics
/// When a level has no noise, or `levels` is empty.
pub fn progressive_code(
    denoiser: &dyn Denoiser,
    levels: &[NoiseLevel],
    x0: &Tensor,
    noise: &mut dyn NoiseSource,
    observe: &mut dyn FnMut(usize, CodedLevel),
) {
    assert!(levels.iter().all(|level| level.sigma > 0.), "expected levels with noise");
    let mut nats = prior_nats(levels[0], x0);
    for (index, &at) in levels.iter().enumerate() {
        let x = at.batch(x0).mix(x0, &noise.like(x0));
        let predicted = denoiser.denoise(&x, at).x0;
        let next = levels.get(index + 1).map(|to| transfer_nats(at, *to, x0, &predicted));
        observe(index, CodedLevel { at, nats: nats.copy(), x0: predicted });
        nats += next.unwrap_or_else(|| nats.zeros_like());
    }
}

/// KL divergence of q(x_T | x_0) from N(0, 1), `[B]` f64 in nats: ½ Σ (ᾱ x_0² − ᾱ − ln(1 − ᾱ)).
fn prior_nats(first: NoiseLevel, x0: &Tensor) -> Tensor {
    let (signal, noise) = (first.alpha_bar(), first.sigma.powi(2));
    let each = x0.to_kind(Kind::Double).square() * signal - signal - noise.ln();
    sum(&each) * 0.5
}

/// KL divergence of q(x_to | x_from, x_0) from the step of the model, which has the same variance: by eq. 5 to 7 of Ho et
/// al. 2020 ½ (SNR_to − SNR_from) ‖x_0 − x̂_0‖² (Kingma et al. 2021, eq. 13), `[B]` f64 in nats.
fn transfer_nats(from: NoiseLevel, to: NoiseLevel, x0: &Tensor, predicted: &Tensor) -> Tensor {
    let snr = |level: NoiseLevel| (level.alpha / level.sigma).powi(2);
    let error = x0.to_kind(Kind::Double) - predicted.to_kind(Kind::Double);
    sum(&error.square()) * (0.5 * (snr(to) - snr(from)))
}

fn sum(each: &Tensor) -> Tensor {
    each.flatten(1, -1).sum_dim_intlist([1_i64].as_slice(), false, Kind::Double)
}
