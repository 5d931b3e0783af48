//! `ldm doctor`: versions, and a test of each device.

use ldm_bench::{check_device, loaded_libtorch, why_no_cuda};
use ldm_core::device::{device_name, parse_device};
use tch::Device;

use crate::args::DoctorArgs;
use crate::terminal::outln;

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    if let Some(threads) = args.device.threads {
        ldm_libtorch::set_threads(usize::from(threads));
    }
    outln!("ldm       {}", env!("CARGO_PKG_VERSION"))?;
    outln!("tch       0.24.0")?;
    outln!(
        "libtorch  {} ({})",
        ldm_libtorch::TORCH_VERSION,
        loaded_libtorch().unwrap_or_default().display()
    )?;
    outln!("threads   {}", ldm_libtorch::threads())?;
    let gpus = ldm_libtorch::cuda_device_count();
    for device in std::iter::once(Device::Cpu).chain((0..gpus).map(Device::Cuda)) {
        outln!("{:9} {}", device_name(device), check_device(device))?;
    }
    if gpus == 0 {
        outln!("cuda      {}", why_no_cuda())?;
    }
    parse_device(&args.device.device)?;
    Ok(())
}
