//! Linear multistep over σ/α.

use tch::Tensor;

use crate::solver_step::linear_combination;
use crate::{Sampler, SamplerRun, SolverStep};

/// LMS: the polynomial through the slopes of the last four steps, integrated over the next. Fourth order once it has
/// four; the first step is Euler's.
///
/// k-diffusion `sampling.py:261` `sample_lms`; diffusers' `LMSDiscreteScheduler`. Both integrate numerically.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lms;

const ORDER: usize = 4;

impl Sampler for Lms {
    fn walk(&self, walk: SamplerRun, x: Tensor) -> Tensor {
        // Newest first.
        let (mut slopes, mut places): (Vec<Tensor>, Vec<f64>) = (Vec::new(), Vec::new());
        walk.down(x, |step| {
            slopes.insert(0, step.derivative());
            slopes.truncate(ORDER);
            let SolverStep { from, to, x, .. } = step;
            places.insert(0, from.noise_to_signal());
            places.truncate(ORDER);
            let integrals = (0..places.len()).map(|which| integral(&places, which, to.noise_to_signal()));
            let mut terms = vec![(to.alpha / from.alpha, x)];
            terms.extend(
                integrals.zip(&slopes).map(|(integral, derivative)| (to.alpha * integral, derivative)),
            );
            linear_combination(&terms)
        })
    }
}

/// The integral from `places[0]` to `end` of the polynomial that is 1 at `places[which]` and 0 at the others: by Gauss'
/// two points, which is exact up to the third degree.
fn integral(places: &[f64], which: usize, end: f64) -> f64 {
    let (middle, half) = (end.midpoint(places[0]), (end - places[0]) / 2.);
    let basis = |at: f64| -> f64 {
        let others = places.iter().enumerate().filter(|(index, _)| *index != which);
        others.map(|(_, place)| (at - place) / (places[which] - place)).product()
    };
    let off = half / 3_f64.sqrt();
    half * (basis(middle - off) + basis(middle + off))
}
