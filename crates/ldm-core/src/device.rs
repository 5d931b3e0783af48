//! Devices and dtypes by name.

use ldm_libtorch::kernels;
use tch::{Device, Kind};

use crate::{Error, Result};

/// Parses `auto`, `cpu`, `cuda` or `cuda:N`. `auto` is CUDA if it works, else the CPU.
///
/// A CUDA device becomes that of this thread ([`ldm_libtorch::set_cuda_device`]), and TF32 is switched off for the process:
/// results in f32 are then those of the CPU to rounding. [`ldm_libtorch::set_tf32`] switches it on again.
///
/// # Errors
/// [`Error::Device`] for another word, for CUDA without a working device, and for a missing GPU: a run never silently
/// falls back to the CPU.
pub fn parse_device(text: &str) -> Result<Device> {
    let gpus = ldm_libtorch::cuda_device_count();
    let index = match text {
        "cpu" => return Ok(Device::Cpu),
        "auto" if gpus == 0 => return Ok(Device::Cpu),
        "auto" | "cuda" => 0,
        _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).ok_or_else(|| {
            Error::Device(format!("device: expected auto, cpu, cuda or cuda:N, got {text}"))
        })?,
    };
    if index < gpus {
        ldm_libtorch::set_tf32(false);
        ldm_libtorch::set_cuda_device(index).map_err(|error| {
            Error::Device(format!("device: expected a working cuda:{index}, got {error}"))
        })?;
        return Ok(Device::Cuda(index));
    }
    Err(Error::Device(if gpus == 0 {
        format!("device: expected a working CUDA device for {text}, got none; try `ldm doctor`")
    } else {
        format!("device: expected cuda:0 to cuda:{}, got {text}", gpus - 1)
    }))
}

/// The device of a test run: `LDM_TEST_DEVICE`, or the CPU. On CUDA with deterministic algorithms, since tests compare runs
/// to the bit; an operation without one fails with its name.
///
/// # Panics
/// When the variable names a missing device: a test run requested for a GPU must not silently run on the CPU.
pub fn test_device() -> Device {
    let device = device_from_env("LDM_TEST_DEVICE");
    if device.is_cuda() {
        ldm_libtorch::set_deterministic(true);
    }
    device
}

/// The device of a bench run: `LDM_BENCH_DEVICE`, or the CPU.
///
/// # Panics
/// As [`test_device`].
pub fn bench_device() -> Device {
    device_from_env("LDM_BENCH_DEVICE")
}

fn device_from_env(variable: &str) -> Device {
    let name = std::env::var(variable).unwrap_or_else(|_| "cpu".into());
    parse_device(&name).unwrap_or_else(|error| panic!("{variable}: {error}"))
}

/// The peak memory in bytes: of the device's allocator on CUDA, else of this process.
pub fn peak_memory(device: Device) -> u64 {
    match device {
        Device::Cuda(index) => ldm_libtorch::cuda_memory(index).peak as u64,
        _ => ldm_libtorch::peak_resident_bytes(),
    }
}

/// Parses `f32`, `bf16` or `f16`.
pub fn parse_dtype(text: &str) -> Result<Kind> {
    match text {
        "f32" => Ok(Kind::Float),
        "bf16" => Ok(Kind::BFloat16),
        "f16" => Ok(Kind::Half),
        _ => Err(Error::Device(format!("dtype: expected f32, bf16 or f16, got {text}"))),
    }
}

/// The name of a dtype, for f32, bf16 and f16 as [`parse_dtype`] reads it.
pub fn dtype_name(kind: Kind) -> String {
    match kind {
        Kind::Float => "f32".into(),
        Kind::BFloat16 => "bf16".into(),
        Kind::Half => "f16".into(),
        Kind::Double => "f64".into(),
        Kind::Int64 => "i64".into(),
        Kind::Int => "i32".into(),
        Kind::Uint8 => "u8".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Parses `f32`, `bf16`, `f16` or `auto`, the [`fast_dtype`] of the device.
///
/// # Errors
/// [`Error::Device`] for another word, and as [`fast_dtype`].
pub fn parse_dtype_for(text: &str, device: Device) -> Result<Kind> {
    if text == "auto" { fast_dtype(device) } else { parse_dtype(text) }
}

/// The dtype that is fast on a device: bf16 on GPUs of compute capability 8.0 or more and on processors that multiply it, with
/// AMX or AVX-512-BF16 (`docs/guide/performance.md`), else f32.
///
/// # Errors
/// [`Error::Device`] when the driver does not know the device.
pub fn fast_dtype(device: Device) -> Result<Kind> {
    let multiplies_bf16 = match device {
        Device::Cuda(index) => {
            let capability = ldm_libtorch::cuda_capability(index).map_err(|error| {
                Error::Device(format!(
                    "dtype: expected the compute capability of cuda:{index}, got {error}; try f32 or bf16"
                ))
            })?;
            multiplies_bf16(capability)
        }
        _ => kernels::has_amx() || kernels::has_bf16_products(),
    };
    Ok(if multiplies_bf16 { Kind::BFloat16 } else { Kind::Float })
}

/// NVIDIA's tensor cores multiply bf16 since Ampere, compute capability 8.0 (CUDA C++ Programming Guide, "Compute
/// Capabilities").
fn multiplies_bf16(compute_capability: (i32, i32)) -> bool {
    compute_capability >= (8, 0)
}

/// The name of a device, as [`parse_device`] reads it.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::multiplies_bf16;

    #[test]
    fn gpus_multiply_bf16_from_ampere_on() {
        // GTX 1080, V100, RTX 2080 and T4; A100, RTX 3090, RTX 4090, H100, B200, RTX 5090.
        let [without, with] =
            [&[(6, 1), (7, 0), (7, 5)][..], &[(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]];
        assert!(!without.iter().copied().any(multiplies_bf16));
        assert!(with.iter().copied().all(multiplies_bf16));
    }
}
