//! Precision, recall, density and coverage.

use ldm_core::{Error, Result};
use tch::{Kind, Tensor};

use crate::feature_sets::distances;

/// Rows of distances in memory at once.
const ROWS: i64 = 4096;

/// Overlap of two sets of images. Each image is the center of a ball that reaches to its k-th neighbor in its own set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Manifold {
    /// Fraction of generated images in a ball of a real one (Kynkäänniemi et al. 2019, eq. 3).
    pub precision: f64,
    /// Fraction of real images in a ball of a generated one.
    pub recall: f64,
    /// Number of balls of real images around a generated one, divided by k (Naeem et al. 2020, eq. 3); it may exceed 1.
    pub density: f64,
    /// Fraction of real images whose ball contains a generated one (eq. 4).
    pub coverage: f64,
}

impl Manifold {
    /// Computes the overlap of the features of `real` and `made` (generated) images, with balls to the `neighbor`-th
    /// neighbor: 3 in the first paper, 5 in the second.
    ///
    /// # Shapes
    /// - `real`, `made`: `[N, D]` and `[M, D]`
    ///
    /// # Errors
    /// [`Error::Invalid`] if a set has no such neighbor; [`Error::Shape`] for other shapes.
    pub fn of(real: &Tensor, made: &Tensor, neighbor: i64) -> Result<Self> {
        let [real, made] = crate::feature_sets::check_pair(real, made)?;
        let [reals, mades] = [&real, &made].map(|set| set.size()[0]);
        if neighbor < 1 || neighbor >= reals.min(mades) {
            return Err(Error::invalid(format!(
                "neighbors: expected 1 to {}, fewer than images in the smaller set, got {neighbor}",
                reals.min(mades) - 1
            )));
        }
        let [around_real, around_made] = [&real, &made].map(|set| radii(set, neighbor));
        let share = |hits: &Tensor| hits.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        let (mut recalled, mut covered) = (Vec::new(), Vec::new());
        // For each generated image, the number of balls of real ones.
        let mut balls = Tensor::zeros([mades], (Kind::Double, made.device()));
        for start in (0..reals).step_by(ROWS as usize) {
            let rows = ROWS.min(reals - start);
            let apart = distances(&real.narrow(0, start, rows), &made); // [rows, M]
            let within = apart.le_tensor(&around_real.narrow(0, start, rows).unsqueeze(1));
            balls += within.to_kind(Kind::Double).sum_dim_intlist([0_i64].as_slice(), false, Kind::Double);
            covered.push(within.any_dim(1, false));
            recalled.push(apart.le_tensor(&around_made.unsqueeze(0)).any_dim(1, false));
        }
        Ok(Self {
            precision: share(&balls.gt(0.)),
            recall: share(&Tensor::cat(&recalled, 0)),
            density: balls.mean(Kind::Double).double_value(&[]) / neighbor as f64,
            coverage: share(&Tensor::cat(&covered, 0)),
        })
    }
}

/// Distance of each image to its k-th neighbor in its own set, `[N]`.
fn radii(set: &Tensor, neighbor: i64) -> Tensor {
    let count = set.size()[0];
    let parts: Vec<Tensor> = (0..count)
        .step_by(ROWS as usize)
        .map(|start| {
            let apart = distances(&set.narrow(0, start, ROWS.min(count - start)), set);
            // The nearest is the image itself.
            apart.kthvalue(neighbor + 1, 1, false).0
        })
        .collect();
    Tensor::cat(&parts, 0)
}
