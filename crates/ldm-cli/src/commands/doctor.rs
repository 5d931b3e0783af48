//! `ldm doctor`: versions, and a test of each device.

use std::path::PathBuf;
use std::time::Instant;

use ldm_core::device::{device_name, parse_device};
use tch::{Device, Kind, Tensor};

use crate::args::DoctorArgs;
use crate::terminal::outln;

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    if let Some(threads) = args.device.threads {
        ldm_libtorch::set_threads(usize::from(threads));
    }
    outln!("ldm       {}", env!("CARGO_PKG_VERSION"))?;
    outln!("tch       0.24.0")?;
    outln!("libtorch  {} ({})", ldm_libtorch::TORCH_VERSION, loaded().unwrap_or_default().display())?;
    outln!("threads   {}", ldm_libtorch::threads())?;
    let gpus = ldm_libtorch::cuda_device_count();
    for device in std::iter::once(Device::Cpu).chain((0..gpus).map(Device::Cuda)) {
        outln!("{:9} {}", device_name(device), measure(device))?;
    }
    if gpus == 0 {
        outln!("cuda      {}", why_no_cuda())?;
    }
    parse_device(&args.device.device)?;
    Ok(())
}

/// Returns the path of the loaded libtorch.
fn loaded() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("libtorch_cpu.so"))?;
    line.split_whitespace().last().map(PathBuf::from)
}

/// Computes a matrix product and reports its speed.
fn measure(device: Device) -> String {
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

fn why_no_cuda() -> &'static str {
    let driver = std::path::Path::new("/proc/driver/nvidia/version").exists();
    let cuda_build = loaded().is_some_and(|path| path.with_file_name("libtorch_cuda.so").exists());
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
