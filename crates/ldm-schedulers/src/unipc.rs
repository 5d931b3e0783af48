//! UniPC (Zhao et al. 2023, arXiv:2302.04867): a predictor and a corrector that share the denoiser's predictions.

use ldm_core::{Error, Result};
use tch::Tensor;

use crate::sampler_run::linear_combination;
use crate::{NoiseLevel, Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// UniPC of order p for x_0, with B(h) = e^h − 1: a step is predicted from the last p predictions of x_0, and corrected
/// with the prediction of the next step, which raises the order to p + 1.
///
/// diffusers' `UniPCMultistepScheduler` (`solver_type: bh2`, `lower_order_final`): the last steps are of lower order,
/// and the last one is first-order and uncorrected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniPc {
    order: usize,
    lower_order_final: bool,
}

impl UniPc {
    /// As the common web UIs.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::SgmUniform).needs_decreasing_levels();

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

/// A prediction of x_0 and its λ.
struct Prediction {
    x0: Tensor,
    lambda: f64,
}

impl Sampler for UniPc {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        let mut predictions: Vec<Prediction> = Vec::new(); // newest first
        let mut before: Option<(Tensor, NoiseLevel, usize)> = None; // start of the last step, and its order
        run.each_step(x, |SolverStep { index, steps, from, to, x, denoised, .. }| {
            let corrected = match &before {
                Some((start, level, order)) => {
                    step(start, *level, from, &predictions[..*order], Some(&denoised.x0))
                }
                None => x.shallow_clone(),
            };
            predictions.insert(0, Prediction { x0: denoised.x0, lambda: from.lambda() });
            predictions.truncate(self.order);
            let lowered = if self.lower_order_final { self.order.min(steps - index) } else { self.order };
            let order = if to.sigma == 0. { 1 } else { lowered.min(predictions.len()) };
            let next = step(&corrected, from, to, &predictions[..order], None);
            before = Some((corrected, from, order));
            next
        })
    }
}

/// From `x` at `from` to `to`, with the predictions at `from` and before, and, to correct, the x_0 at `to`.
///
/// Zhao et al. 2023, eq. 3 (predictor) and 2 (corrector), for x_0 (appendix A).
fn step(
    x: &Tensor,
    from: NoiseLevel,
    to: NoiseLevel,
    predictions: &[Prediction],
    end: Option<&Tensor>,
) -> Tensor {
    let h = to.lambda() - from.lambda();
    let gain = -(-h).exp_m1(); // B(h), and h·φ_1(h), up to its sign
    let mut nodes: Vec<f64> = predictions[1..].iter().map(|each| (each.lambda - from.lambda()) / h).collect();
    if end.is_some() {
        nodes.push(1.);
    }
    let rho = match nodes.len() {
        // For two predictions the paper fixes the coefficient (remark after its eq. 5), as diffusers.
        1 => vec![0.5],
        _ => coefficients(-h, &nodes),
    };
    // The factor of each difference to the prediction at `from`, over its distance.
    let weights: Vec<f64> = rho.iter().zip(&nodes).map(|(rho, node)| to.alpha * gain * rho / node).collect();
    let others = predictions[1..].iter().map(|each| &each.x0).chain(end);
    let mut terms =
        vec![(to.sigma / from.sigma, x), (to.alpha * gain - weights.iter().sum::<f64>(), &predictions[0].x0)];
    terms.extend(weights.iter().copied().zip(others));
    linear_combination(&terms)
}

/// The solution ρ of Σ_m ρ_m·r_m^(n−1) = n!·φ_{n+1}(h)·h/B(h), n = 1, …: as many equations as nodes r.
fn coefficients(h: f64, nodes: &[f64]) -> Vec<f64> {
    let count = nodes.len();
    let (mut phi, mut factorial) = (h.exp_m1() / h - 1., 1.);
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for n in 1..=count {
        let powers = nodes.iter().map(|node| node.powi(n as i32 - 1));
        rows.push(powers.chain([phi * factorial / h.exp_m1()]).collect());
        factorial *= (n + 1) as f64;
        phi = phi / h - 1. / factorial;
    }
    // Gauss–Jordan: the nodes differ, so that no pivot vanishes.
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
