//! `ldm doctor`: versions, and a test of each device.

use ldm_bench::{check_device, why_no_cuda};
use ldm_core::device::{device_name, parse_device};
use tch::Device;

use crate::args::DoctorArgs;
use crate::commands::version::write_versions;
use crate::terminal::outln;

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    if let Some(threads) = args.device.threads {
        ldm_libtorch::set_threads(usize::from(threads));
    }
    write_versions()?;
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
