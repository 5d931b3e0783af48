//! `ldm --version --verbose`: versions, and the kernels and devices in use.

use ldm_bench::loaded_libtorch;
use ldm_core::device::device_name;
use ldm_libtorch::kernels::{Level, has_bf16_products, kernels};
use tch::Device;

use crate::terminal::{StdoutError, outln};

pub(crate) fn run() -> anyhow::Result<()> {
    write_versions()?;
    let gpus = (0..ldm_libtorch::cuda_device_count()).map(Device::Cuda);
    let names: Vec<String> = std::iter::once(Device::Cpu).chain(gpus).map(device_name).collect();
    outln!("devices   {}", names.join(", "))?;
    Ok(())
}

/// Prints the versions, the instruction set of the processor and the kernels in use.
pub(crate) fn write_versions() -> Result<(), StdoutError> {
    let level = Level::detect();
    let products = if has_bf16_products() { ", multiplies bf16" } else { "" };
    outln!("ldm       {}", env!("CARGO_PKG_VERSION"))?;
    outln!("tch       0.24.0")?;
    let path = loaded_libtorch().unwrap_or_default();
    outln!("libtorch  {} ({})", ldm_libtorch::TORCH_VERSION, path.display())?;
    outln!("level     {level}{products}")?;
    outln!("kernels   {}", kernel_text(level, kernels()))
}

/// Describes the kernels in use on a processor with a level.
fn kernel_text(level: Level, kernels: Option<Level>) -> String {
    match kernels {
        Some(level) => format!("ldm at {level}"),
        None if level == Level::Scalar => {
            "libtorch: this CPU has no AVX2, so ldm works, but many times slower; try a CPU of 2015 or later"
                .into()
        }
        None => "libtorch".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_without_avx2_is_named() {
        assert!(kernel_text(Level::Scalar, None).contains("no AVX2"));
        assert_eq!(kernel_text(Level::Avx2, None), "libtorch");
        assert_eq!(kernel_text(Level::Avx512, Some(Level::Avx2)), "ldm at avx2");
    }
}
