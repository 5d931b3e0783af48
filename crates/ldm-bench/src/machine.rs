//! The roofline of the machine: arithmetic and memory bandwidth.

use std::fmt;
use std::time::Instant;

use ldm_core::NoiseSource;
use ldm_core::noise::Seeded;
use ldm_libtorch::to_channels_last;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::measure::wait;

/// The ridge of the roofline (Williams, Waterman & Patterson 2009), measured rather than read off a data sheet.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Roofline {
    /// Floating-point operations per second of a large square matrix product of random numbers in the run's dtype, by the
    /// faster of [`Roofline::product_kernel`]'s two.
    pub matrix_product_flop_per_second: f64,
    /// libtorch's operation of the product: `matmul` or, on the CPU, a 1x1 `conv2d`. They are different libraries (MKL and
    /// oneDNN), of which MKL runs at half speed on some processors.
    pub product_kernel: &'static str,
    /// Bytes per second, read and written, of a copy larger than the caches.
    pub copy_bytes_per_second: f64,
}

impl Roofline {
    /// Measures the machine.
    pub(crate) fn measure(device: Device, kind: Kind) -> Self {
        let (side, bytes) = if device.is_cuda() { (8192, 1_i64 << 30) } else { (2048, 1 << 28) };
        // Random numbers: processors clock higher on ones, whose bits do not change.
        let a = Seeded::new([0]).like(&Tensor::zeros([1, side, side], (kind, device))).squeeze_dim(0);
        let product = fastest(device, || a.matmul(&a));
        let mut kernels = vec![(product, "matmul")];
        if device == Device::Cpu {
            let image = to_channels_last(&a.view([1, side, side / 32, 32]));
            let weight = a.view([side, side, 1, 1]);
            let conv = || image.conv2d(&weight, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1);
            kernels.push((fastest(device, conv), "conv2d"));
        }
        let (product, product_kernel) =
            kernels.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("one or two");
        let from = Tensor::ones([bytes / 4], (Kind::Float, device));
        let mut to = from.zeros_like();
        let copy = fastest(device, || to.copy_(&from));
        Self {
            matrix_product_flop_per_second: 2. * (side as f64).powi(3) / product,
            product_kernel,
            copy_bytes_per_second: 2. * bytes as f64 / copy,
        }
    }

    /// Combines the faster values of two measurements.
    pub(crate) fn or_faster(self, other: Self) -> Self {
        let speed = |of: &Self| of.matrix_product_flop_per_second;
        let faster = if speed(&self) < speed(&other) { other } else { self };
        let copy_bytes_per_second = self.copy_bytes_per_second.max(other.copy_bytes_per_second);
        Self { copy_bytes_per_second, ..faster }
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
        write!(f, "matrix product {product:.0} GFLOP/s ({}), copy {copy:.1} GB/s", self.product_kernel)
    }
}
