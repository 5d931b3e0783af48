//! Kernel distance (KID).

use ldm_core::noise::PerStep;
use ldm_core::{Error, NoiseSource, Result};
use tch::{Kind, Tensor};

use crate::MeanStd;

/// Parameters of the kernel distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelDistance {
    /// Number of subsets to average over.
    pub subsets: usize,
    /// Size of a subset, drawn without replacement.
    pub size: i64,
    /// Seed of the subsets.
    pub seed: u64,
}

/// The defaults of torch-fidelity.
impl Default for KernelDistance {
    fn default() -> Self {
        Self { subsets: 100, size: 1000, seed: 0 }
    }
}

impl KernelDistance {
    /// Computes the unbiased squared maximum mean discrepancy of two sets with the kernel (x·y/D + 1)³ over the subsets
    /// (KID, Bińkowski et al. 2018, eq. 4). Papers commonly report 1000 times the value.
    ///
    /// # Shapes
    /// - `a`, `b`: `[N, D]` and `[M, D]`
    ///
    /// # Errors
    /// [`Error::Invalid`] if a set is smaller than a subset, or a subset has fewer than two images; [`Error::Shape`] for
    /// other shapes.
    pub fn of(&self, a: &Tensor, b: &Tensor) -> Result<MeanStd> {
        let [a, b] = crate::feature_sets::check_pair(a, b)?;
        let least = a.size()[0].min(b.size()[0]);
        if self.size < 2 || self.size > least {
            return Err(Error::invalid(format!(
                "subsets: expected 2 to {least} images, the size of the smaller set, got {}",
                self.size
            )));
        }
        let mut found = MeanStd::new();
        for subset in 0..self.subsets as u64 {
            let mut noise = PerStep::new(self.seed, 0, subset);
            let mut drawn = |set: &Tensor| {
                // Sorting uniform numbers gives a random permutation.
                let order = noise.uniform(set.size()[0], set).argsort(0, false);
                set.index_select(0, &order.narrow(0, 0, self.size))
            };
            found.add(&discrepancy(&drawn(&a), &drawn(&b)));
        }
        Ok(found)
    }
}

/// Returns the unbiased estimate for two sets of equal size.
fn discrepancy(a: &Tensor, b: &Tensor) -> Tensor {
    let [count, features] = [a.size()[0] as f64, a.size()[1] as f64];
    let kernel = |x: &Tensor, y: &Tensor| (x.matmul(&y.tr()) / features + 1.).pow_tensor_scalar(3);
    let apart = |x: &Tensor| {
        let within = kernel(x, x);
        (within.sum(Kind::Double) - within.trace()) / (count * (count - 1.))
    };
    apart(a) + apart(b) - kernel(a, b).sum(Kind::Double) * (2. / (count * count))
}
