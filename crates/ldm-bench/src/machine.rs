//! The roofline of the machine: arithmetic and memory bandwidth.

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::measure::wait;

/// The ridge of the roofline (Williams, Waterman & Patterson 2009), measured rather than read off a data sheet.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Roofline {
    /// Floating-point operations per second of a large square matrix product in the run's dtype.
    pub matrix_product_flop_per_second: f64,
    /// Bytes per second, read and written, of a copy larger than the caches.
    pub copy_bytes_per_second: f64,
}

impl Roofline {
    /// Measures the machine.
    pub(crate) fn measure(device: Device, kind: Kind) -> Self {
        let (side, bytes) = if device.is_cuda() { (8192, 1_i64 << 30) } else { (2048, 1 << 28) };
        let a = Tensor::ones([side, side], (kind, device));
        let product = fastest(device, || a.matmul(&a));
        let from = Tensor::ones([bytes / 4], (Kind::Float, device));
        let mut to = from.zeros_like();
        let copy = fastest(device, || to.copy_(&from));
        Self {
            matrix_product_flop_per_second: 2. * (side as f64).powi(3) / product,
            copy_bytes_per_second: 2. * bytes as f64 / copy,
        }
    }

    /// Combines the faster values of two measurements.
    pub(crate) fn or_faster(self, other: Self) -> Self {
        let max = |of: fn(&Self) -> f64| of(&self).max(of(&other));
        Self {
            matrix_product_flop_per_second: max(|each| each.matrix_product_flop_per_second),
            copy_bytes_per_second: max(|each| each.copy_bytes_per_second),
        }
    }

    /// Returns the least seconds for an amount of arithmetic and of memory traffic that overlap.
    pub fn roof(&self, flop: i64, bytes: i64) -> f64 {
        (flop as f64 / self.matrix_product_flop_per_second).max(bytes as f64 / self.copy_bytes_per_second)
    }
}

/// Measures the fastest of several runs in seconds, after a warm-up run: other programs can only slow it down.
fn fastest<T>(device: Device, mut run: impl FnMut() -> T) -> f64 {
    let mut once = || {
        wait(device);
        let begun = Instant::now();
        let _ = run();
        wait(device);
        begun.elapsed().as_secs_f64()
    };
    once();
    (0..7).map(|_| once()).fold(f64::INFINITY, f64::min)
}

impl fmt::Display for Roofline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (product, copy) = (self.matrix_product_flop_per_second / 1e9, self.copy_bytes_per_second / 1e9);
        write!(f, "matrix product {product:.0} GFLOP/s, copy {copy:.1} GB/s")
    }
}
