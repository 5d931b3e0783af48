//! Devices and dtypes by the names people type.

use tch::{Device, Kind};

use crate::{Error, Result};

/// Reads `auto`, `cpu`, `cuda` or `cuda:N`. `auto` takes CUDA where it works, else the CPU.
///
/// # Errors
/// Asking for CUDA where there is none, or for a GPU that is not there, is an error and never a silent CPU
/// run; so is any other word.
pub fn parse_device(text: &str) -> Result<Device> {
    let gpus = ldm_libtorch::cuda_device_count();
    let index = match text {
        "cpu" => return Ok(Device::Cpu),
        "auto" => return Ok(if gpus > 0 { Device::Cuda(0) } else { Device::Cpu }),
        "cuda" => 0,
        _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).ok_or_else(|| {
            Error::Device(format!("unknown device, expected auto, cpu, cuda or cuda:N: {text}"))
        })?,
    };
    if index < gpus {
        return Ok(Device::Cuda(index));
    }
    Err(Error::Device(if gpus == 0 {
        format!("no CUDA device works here (`ldm doctor` says why), asked for: {text}")
    } else {
        format!("there are {gpus} CUDA devices, numbered from 0, asked for: {text}")
    }))
}

/// The device of a test run: `LDM_TEST_DEVICE`, or the CPU.
///
/// # Panics
/// When the variable names a device that is not there: a test run that was asked for on a GPU and ran on
/// the CPU would be a lie.
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

/// Most bytes ever held: on CUDA by the device's allocator, else by this process.
pub fn peak_memory(device: Device) -> u64 {
    match device {
        Device::Cuda(index) => ldm_libtorch::cuda_memory(index).peak as u64,
        _ => ldm_libtorch::peak_resident_bytes(),
    }
}

/// Reads `f32`, `bf16` or `f16`.
pub fn parse_dtype(text: &str) -> Result<Kind> {
    match text {
        "f32" => Ok(Kind::Float),
        "bf16" => Ok(Kind::BFloat16),
        "f16" => Ok(Kind::Half),
        _ => Err(Error::Device(format!("unknown dtype, expected f32, bf16 or f16: {text}"))),
    }
}

/// The name [`parse_device`] reads.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}
