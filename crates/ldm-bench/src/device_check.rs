//! A test of a device, and of the libtorch in this process.

use std::path::PathBuf;
use std::time::Instant;

use ldm_libtorch::CudaLibrary;
use tch::{Device, Kind, Tensor};

use crate::nvidia_driver;

/// Computes a matrix product and describes its result: right or wrong, and its speed; of a GPU also its compute capability.
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
    if !right {
        return "gives wrong results".into();
    }
    let capability = match device {
        Device::Cuda(index) => ldm_libtorch::cuda_capability(index).ok(),
        _ => None,
    };
    let capability =
        capability.map_or(String::new(), |(major, minor)| format!(", compute capability {major}.{minor}"));
    format!("works, {rate:.0} GFLOP/s in f32{capability}")
}

/// Returns the path of the loaded libtorch.
pub fn loaded_libtorch() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("libtorch_cpu.so"))?;
    line.split_whitespace().last().map(PathBuf::from)
}

/// Explains why no GPU is found.
pub fn why_no_cuda() -> String {
    let cuda_build = loaded_libtorch().is_some_and(|path| path.with_file_name("libtorch_cuda.so").exists());
    let of_driver = ldm_libtorch::cuda_capability(0).err();
    explain(nvidia_driver::is_present(), cuda_build, ldm_libtorch::cuda_library(), of_driver.as_deref())
}

/// Explains it by the signs of a driver, the files next to libtorch, the state of its CUDA library, and the driver's error for
/// the first GPU.
fn explain(driver: bool, cuda_build: bool, library: CudaLibrary, of_driver: Option<&str>) -> String {
    match (library, of_driver) {
        (CudaLibrary::NoDevice, _) if !driver => "none: no NVIDIA driver on this machine".into(),
        (CudaLibrary::NoDevice, _) => "none: a driver is installed, but no /dev/nvidiactl, /dev/nvidia0 or /dev/dxg; a \
             container needs access to the GPU, as with `docker run --gpus all`"
            .into(),
        (CudaLibrary::Failed(_), _) if !cuda_build => {
            "none: the driver is installed, but libtorch is the CPU build; try `cargo xtask setup --cuda`".into()
        }
        (CudaLibrary::Failed(reason), _) => format!("none: libtorch's CUDA library cannot be loaded: {reason}"),
        (CudaLibrary::Open, Some(error)) => {
            format!("none: driver and CUDA build are installed, but the driver has no device: {error}")
        }
        (CudaLibrary::Open, None) => {
            "none: driver and CUDA build are installed, but no device works; check that the driver supports CUDA 13 (`nvidia-smi`)".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(explained: String, expected: &str) {
        assert!(explained.starts_with("none: ") && explained.contains(expected), "{explained}");
        assert!(!explained.contains("  "), "{explained}");
    }

    #[test]
    fn each_reason_has_its_sentence() {
        let failed = |reason: &str| CudaLibrary::Failed(reason.into());
        let cudnn = "libcudnn.so.9: cannot open shared object file: No such file or directory";
        check(explain(false, false, CudaLibrary::NoDevice, None), "no NVIDIA driver on this machine");
        check(
            explain(true, true, CudaLibrary::NoDevice, None),
            "no /dev/nvidiactl, /dev/nvidia0 or /dev/dxg",
        );
        check(
            explain(true, false, failed("libtorch_cuda.so: cannot open"), None),
            "libtorch is the CPU build",
        );
        check(explain(true, true, failed(cudnn), None), cudnn);
        check(explain(true, true, CudaLibrary::Open, Some("cuInit: no CUDA-capable device")), "cuInit: no");
        check(explain(true, true, CudaLibrary::Open, None), "supports CUDA 13 (`nvidia-smi`)");
    }
}
