//! Precision, recall, density and coverage.

use ldm_core::{Error, Result};
use tch::{Kind, Tensor};

use crate::shapes::distances;

/// Rows whose distances are held at once.
const ROWS: i64 = 4096;

/// How two sets of images lie among each other: each image stands for a ball that reaches to its k-th neighbor in its
/// own set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Manifold {
    /// Share of made images that lie in a ball of a real one (Kynkäänniemi et al. 2019, eq. 3).
    pub precision: f64,
    /// Share of real images that lie in a ball of a made one.
    pub recall: f64,
    /// In how many balls of real images a made one lies, in shares of k (Naeem et al. 2020, eq. 3); it may be above 1.
    pub density: f64,
    /// Share of real images whose ball holds a made one (eq. 4).
    pub coverage: f64,
}

impl Manifold {
    /// Of `real` and `made` images' features, with balls that reach to the `neighbor`-th: 3 in the first paper, 5 in the
    /// second.
    ///
    /// # Shapes
    /// - `real`, `made`: `[N, D]` and `[M, D]`
    ///
    /// # Errors
    /// [`Error::Invalid`] when a set has no such neighbor; [`Error::Shape`] for other shapes.
    pub fn of(real: &Tensor, made: &Tensor, neighbor: i64) -> Result<Self> {
        let [real, made] = crate::shapes::alike(real, made)?;
        let [reals, mades] = [&real, &made].map(|set| set.size()[0]);
        if neighbor < 1 || neighbor >= reals.min(mades) {
            return Err(Error::invalid(format!(
                "neighbors: expected 1 to {}, fewer than images in the smaller set, got: {neighbor}",
                reals.min(mades) - 1
            )));
        }
        let [around_real, around_made] = [&real, &made].map(|set| radii(set, neighbor));
        let share = |hits: &Tensor| hits.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        let (mut recalled, mut covered) = (Vec::new(), Vec::new());
        // For each made image, in how many balls of real ones.
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

/// How far each image's k-th neighbor in its own set is, `[N]`.
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
