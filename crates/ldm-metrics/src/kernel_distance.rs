//! KID.

use ldm_core::noise::PerStep;
use ldm_core::{Error, NoiseSource, Result};
use tch::{Kind, Tensor};

use crate::MeanStd;

/// How the kernel distance is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelDistance {
    /// Over how many subsets it is averaged.
    pub subsets: usize,
    /// How large they are; each is drawn without putting back.
    pub size: i64,
    /// What they are drawn from.
    pub seed: u64,
}

/// As torch-fidelity.
impl Default for KernelDistance {
    fn default() -> Self {
        Self { subsets: 100, size: 1000, seed: 0 }
    }
}

impl KernelDistance {
    /// The squared maximum mean discrepancy of two sets with the kernel (x·y/D + 1)³, unbiased, over the subsets (KID,
    /// Bińkowski et al. 2018, eq. 4). Papers commonly print a thousand times as much.
    ///
    /// # Shapes
    /// - `a`, `b`: `[N, D]` and `[M, D]`
    ///
    /// # Errors
    /// [`Error::Invalid`] when a set is smaller than the subsets, or these have fewer than two images; [`Error::Shape`]
    /// for other shapes.
    pub fn of(&self, a: &Tensor, b: &Tensor) -> Result<MeanStd> {
        let [a, b] = crate::shapes::alike(a, b)?;
        let least = a.size()[0].min(b.size()[0]);
        if self.size < 2 || self.size > least {
            return Err(Error::invalid(format!(
                "subsets: expected 2 to {least} images, as many as the smaller set has, got: {}",
                self.size
            )));
        }
        let mut found = MeanStd::new();
        for subset in 0..self.subsets as u64 {
            let mut noise = PerStep::new(self.seed, 0, subset);
            let mut drawn = |set: &Tensor| {
                // The order of as many uniform numbers is a permutation.
                let order = noise.uniform(set.size()[0], set).argsort(0, false);
                set.index_select(0, &order.narrow(0, 0, self.size))
            };
            found.add(&discrepancy(&drawn(&a), &drawn(&b)));
        }
        Ok(found)
    }
}

/// The unbiased estimate for two sets of one size.
fn discrepancy(a: &Tensor, b: &Tensor) -> Tensor {
    let [count, features] = [a.size()[0] as f64, a.size()[1] as f64];
    let kernel = |x: &Tensor, y: &Tensor| (x.matmul(&y.tr()) / features + 1.).pow_tensor_scalar(3);
    let apart = |x: &Tensor| {
        let within = kernel(x, x);
        (within.sum(Kind::Double) - within.trace()) / (count * (count - 1.))
    };
    apart(a) + apart(b) - kernel(a, b).sum(Kind::Double) * (2. / (count * count))
}
