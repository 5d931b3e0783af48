//! UniPC (Zhao et al. 2023, arXiv:2302.04867): a predictor and a corrector that share the denoiser's answers.

use ldm_core::{Error, Result};
use tch::Tensor;

use crate::solver_step::linear_combination;
use crate::{NoiseLevel, Sampler, SamplerRun, SolverStep};

/// UniPC of an order, for x_0 and with B(h) = e^h − 1: a step is predicted from the last answers, and corrected
/// once the denoiser was asked at its end. Order p of the predictor gives p + 1 with the corrector.
///
/// diffusers' `UniPCMultistepScheduler` (`solver_type: bh2`, `lower_order_final`): the last steps are of lower order,
/// the very last of the first, and it is not corrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniPc {
    order: usize,
    lower_order_final: bool,
}

impl UniPc {
    /// The solver of an order. With `lower_order_final` the order falls to 1 over the last steps.
    ///
    /// # Errors
    /// When `order` is not 1, 2 or 3.
    pub fn new(order: usize, lower_order_final: bool) -> Result<Self> {
        if (1..=3).contains(&order) {
            Ok(Self { order, lower_order_final })
        } else {
            Err(Error::invalid(format!("order: expected 1, 2 or 3, got {order}")))
        }
    }
}

/// A denoiser's answer and where it was given.
struct Answer {
    x0: Tensor,
    lambda: f64,
}

impl Sampler for UniPc {
    fn walk(&self, walk: SamplerRun, x: Tensor) -> Tensor {
        let mut answers: Vec<Answer> = Vec::new(); // newest first
        let mut before: Option<(Tensor, NoiseLevel, usize)> = None; // where the last step began, and its order
        walk.down(x, |SolverStep { index, steps, from, to, x, denoised, .. }| {
            let corrected = match &before {
                Some((start, level, order)) => {
                    step(start, *level, from, &answers[..*order], Some(&denoised.x0))
                }
                None => x.shallow_clone(),
            };
            answers.insert(0, Answer { x0: denoised.x0, lambda: from.lambda() });
            answers.truncate(self.order);
            let lowered = if self.lower_order_final { self.order.min(steps - index) } else { self.order };
            let order = if to.sigma == 0. { 1 } else { lowered.min(answers.len()) };
            let next = step(&corrected, from, to, &answers[..order], None);
            before = Some((corrected, from, order));
            next
        })
    }
}

/// From `x` at `from` to `to`, with the answers at `from` and before, and, to correct, the answer at `to`.
///
/// Zhao et al. 2023, eq. 3 (predictor) and 2 (corrector), for x_0 (appendix A).
fn step(x: &Tensor, from: NoiseLevel, to: NoiseLevel, answers: &[Answer], end: Option<&Tensor>) -> Tensor {
    let h = to.lambda() - from.lambda();
    let gain = -(-h).exp_m1(); // B(h), and h·φ_1(h), up to its sign
    let mut places: Vec<f64> =
        answers[1..].iter().map(|answer| (answer.lambda - from.lambda()) / h).collect();
    if end.is_some() {
        places.push(1.);
    }
    let shares = match places.len() {
        // For two answers the paper fixes the share (remark after its eq. 5), as diffusers.
        1 => vec![0.5],
        _ => shares(-h, &places),
    };
    // Each difference to the answer at `from`, over its distance.
    let weights: Vec<f64> =
        shares.iter().zip(&places).map(|(share, place)| to.alpha * gain * share / place).collect();
    let others = answers[1..].iter().map(|answer| &answer.x0).chain(end);
    let mut terms =
        vec![(to.sigma / from.sigma, x), (to.alpha * gain - weights.iter().sum::<f64>(), &answers[0].x0)];
    terms.extend(weights.iter().copied().zip(others));
    linear_combination(&terms)
}

/// The solution ρ of Σ_m ρ_m·r_m^(n−1) = n!·φ_{n+1}(h)·h/B(h), n = 1, …: as many equations as places r.
fn shares(h: f64, places: &[f64]) -> Vec<f64> {
    let count = places.len();
    let (mut phi, mut factorial) = (h.exp_m1() / h - 1., 1.);
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for n in 1..=count {
        let powers = places.iter().map(|place| place.powi(n as i32 - 1));
        rows.push(powers.chain([phi * factorial / h.exp_m1()]).collect());
        factorial *= (n + 1) as f64;
        phi = phi / h - 1. / factorial;
    }
    // Gauss–Jordan: the places differ, so that no pivot vanishes.
    for pivot in 0..count {
        let scale = rows[pivot][pivot];
        for value in &mut rows[pivot] {
            *value /= scale;
        }
        let reference = rows[pivot].clone();
        for (index, row) in rows.iter_mut().enumerate() {
            let factor = row[pivot];
            if index != pivot {
                for (value, other) in row.iter_mut().zip(&reference) {
                    *value -= factor * other;
                }
            }
        }
    }
    rows.into_iter().map(|row| row[count]).collect()
}
