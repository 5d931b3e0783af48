//! Random number generators with their own state.

use tch::{Kind, Tensor};

use crate::ffi::RawGenerator;

/// libtorch's CPU generator, equal to `torch.Generator("cpu").manual_seed(seed)` in Python.
#[derive(Debug)]
pub struct Generator(RawGenerator);

impl Generator {
    /// Creates a generator with `seed`.
    pub fn new(seed: u64) -> Self {
        Self(RawGenerator::new(seed).expect("memory for a generator"))
    }

    /// Draws from N(0, 1), on the CPU. `torch.randn(size, generator=...)`.
    ///
    /// # Panics
    /// When `kind` is not a floating dtype.
    pub fn randn(&mut self, size: &[i64], kind: Kind) -> Tensor {
        self.0.randn(size, kind).expect("a size that fits in memory")
    }

    /// Draws from U[0, 1), on the CPU. `torch.rand(size, generator=...)`.
    ///
    /// # Panics
    /// As [`Generator::randn`].
    pub fn rand(&mut self, size: &[i64], kind: Kind) -> Tensor {
        self.0.rand(size, kind).expect("a size that fits in memory")
    }

    /// Draws i64 uniformly from `0..high`, on the CPU. `torch.randint(high, size, generator=...)`.
    ///
    /// # Panics
    /// When `high` is not positive.
    pub fn randint(&mut self, high: i64, size: &[i64]) -> Tensor {
        self.0.randint(high, size).expect("a positive bound and a size that fits in memory")
    }
}
