//! Linear multistep over σ/α.

use tch::Tensor;

use crate::sampler_run::linear_combination;
use crate::{Sampler, SamplerProperties, SamplerRun, SolverStep, Spacing};

/// LMS: the polynomial through the derivatives of the last four steps, integrated over the next. Fourth order once it has
/// four; the first step is Euler's.
///
/// k-diffusion `sampling.py:261` `sample_lms`; diffusers' `LMSDiscreteScheduler`. Both integrate numerically.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lms;

impl Lms {
    /// As diffusers.
    pub(crate) const PROPERTIES: SamplerProperties =
        SamplerProperties::new(Spacing::Linspace).starts_at_sigma().needs_decreasing_levels();
}

const ORDER: usize = 4;

impl Sampler for Lms {
    fn sample(&self, x: Tensor, run: SamplerRun) -> Tensor {
        // Newest first.
        let (mut derivatives, mut nodes): (Vec<Tensor>, Vec<f64>) = (Vec::new(), Vec::new());
        run.each_step(x, |step| {
            derivatives.insert(0, step.derivative());
            derivatives.truncate(ORDER);
            let SolverStep { from, to, x, .. } = step;
            nodes.insert(0, from.noise_to_signal());
            nodes.truncate(ORDER);
            let integrals = (0..nodes.len()).map(|which| integral(&nodes, which, to.noise_to_signal()));
            let mut terms = vec![(to.alpha / from.alpha, x)];
            terms.extend(
                integrals.zip(&derivatives).map(|(integral, derivative)| (to.alpha * integral, derivative)),
            );
            linear_combination(&terms)
        })
    }
}

/// The integral from `nodes[0]` to `end` of the polynomial that is 1 at `nodes[which]` and 0 at the others: by Gauss'
/// two points, which is exact up to the third degree.
fn integral(nodes: &[f64], which: usize, end: f64) -> f64 {
    let (middle, half) = (end.midpoint(nodes[0]), (end - nodes[0]) / 2.);
    let basis = |at: f64| -> f64 {
        let others = nodes.iter().enumerate().filter(|(index, _)| *index != which);
        others.map(|(_, node)| (at - node) / (nodes[which] - node)).product()
    };
    let off = half / 3_f64.sqrt();
    half * (basis(middle - off) + basis(middle + off))
}
