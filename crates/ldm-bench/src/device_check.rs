//! A test of a device, and of the libtorch in this process.

use std::path::PathBuf;
use std::time::Instant;

use tch::{Device, Kind, Tensor};

/// Computes a matrix product and describes its result: right or wrong, and its speed.
pub fn check_device(device: Device) -> String {
    let a = Tensor::ones([1024, 1024], (Kind::Float, device));
    let _ = a.matmul(&a).double_value(&[0, 0]);
    let start = Instant::now();
    let mut product = a.shallow_clone();
    for _ in 0..4 {
        product = a.matmul(&product) / 1024.;
    }
    let right = (product.double_value(&[7, 7]) - 1.).abs() < 1e-3;
    let rate = 4. * 2. * 1024_f64.powi(3) / start.elapsed().as_secs_f64() / 1e9;
    if right { format!("works, {rate:.0} GFLOP/s in f32") } else { "gives wrong results".into() }
}

/// Returns the path of the loaded libtorch.
pub fn loaded_libtorch() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("libtorch_cpu.so"))?;
    line.split_whitespace().last().map(PathBuf::from)
}

/// Explains why no GPU is found.
pub fn why_no_cuda() -> &'static str {
    let driver = std::path::Path::new("/proc/driver/nvidia/version").exists();
    let cuda_build = loaded_libtorch().is_some_and(|path| path.with_file_name("libtorch_cuda.so").exists());
    match (driver, cuda_build) {
        (false, _) => "none: no NVIDIA driver on this machine",
        (true, false) => {
            "none: the driver is installed, but libtorch is the CPU build; try `cargo xtask setup --cuda`"
        }
        (true, true) => {
            "none: driver and CUDA build are installed, but no device works; check that the driver supports CUDA 13 (`nvidia-smi`)"
        }
    }
}
