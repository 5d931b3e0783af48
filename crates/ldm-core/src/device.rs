//! Devices and dtypes by name.

use ldm_libtorch::kernels;
use tch::{Device, Kind};

use crate::{Error, Result};

/// Parses `auto`, `cpu`, `cuda` or `cuda:N`. `auto` is CUDA if it works, else the CPU.
///
/// # Errors
/// [`Error::Device`] for another word, for CUDA without a working device, and for a missing GPU: a run never silently
/// falls back to the CPU.
pub fn parse_device(text: &str) -> Result<Device> {
    let gpus = ldm_libtorch::cuda_device_count();
    let index = match text {
        "cpu" => return Ok(Device::Cpu),
        "auto" => return Ok(if gpus > 0 { Device::Cuda(0) } else { Device::Cpu }),
        "cuda" => 0,
        _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).ok_or_else(|| {
            Error::Device(format!("device: expected auto, cpu, cuda or cuda:N, got {text}"))
        })?,
    };
    if index < gpus {
        return Ok(Device::Cuda(index));
    }
    Err(Error::Device(if gpus == 0 {
        format!("device: expected a working CUDA device for {text}, got none; try `ldm doctor`")
    } else {
        format!("device: expected cuda:0 to cuda:{}, got {text}", gpus - 1)
    }))
}

/// The device of a test run: `LDM_TEST_DEVICE`, or the CPU.
///
/// # Panics
/// When the variable names a missing device: a test run requested for a GPU must not silently run on the CPU.
pub fn test_device() -> Device {
    device_from_env("LDM_TEST_DEVICE")
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

/// Replaces `auto` by the name of the dtype that is fast on this machine: bf16 on processors that multiply it, with AMX or
/// AVX-512-BF16 (`docs/guide/performance.md`), else f32. Other texts stay as they are.
pub fn resolve_dtype(text: &str) -> std::result::Result<String, std::convert::Infallible> {
    Ok(match text {
        "auto" => if kernels::has_amx() || kernels::has_bf16_products() { "bf16" } else { "f32" }.into(),
        _ => text.into(),
    })
}

/// The name of a device, as [`parse_device`] reads it.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}
