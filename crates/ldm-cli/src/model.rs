//! From typed words to an opened model.

use anyhow::Context;
use ldm_core::device::{device_name, parse_device, parse_dtype};
use ldm_pipelines::{LatentDiffusion, Model};
use tch::Device;

use crate::args::{DeviceArgs, ModelArgs};
use crate::progress::Talk;

/// The device asked for, with the threads set.
pub(crate) fn device(args: &DeviceArgs, talk: Option<Talk>) -> anyhow::Result<Device> {
    if let Some(threads) = args.threads {
        ldm_libtorch::set_threads(threads);
    }
    let device = parse_device(&args.device)?;
    if let (Some(talk), "auto") = (talk, args.device.as_str()) {
        talk.detail(&format!("device: {}", device_name(device)));
    }
    Ok(device)
}

/// The model asked for.
pub(crate) fn open(args: &ModelArgs) -> anyhow::Result<Model> {
    let device = device(&args.device, None)?;
    let kind = parse_dtype(&args.dtype)?;
    let ema = args.ema || !args.no_ema;
    Ok(Model::open(&args.model, args.config.as_deref(), ema, device, kind)?)
}

/// A whole diffusion model.
pub(crate) fn open_diffusion(args: &ModelArgs) -> anyhow::Result<Box<LatentDiffusion>> {
    match open(args)? {
        Model::Diffusion(model) => Ok(model),
        Model::FirstStage(_) => {
            anyhow::bail!("{}: a first stage alone, which has nothing to sample from", args.model.display())
        }
    }
}

/// The class a word names: a number below `count`, or one of `names`.
pub(crate) fn class(word: &str, names: &[String], count: i64) -> anyhow::Result<i64> {
    if let Some(index) = names.iter().position(|name| name == word) {
        return Ok(index as i64);
    }
    let number: Option<i64> = word.parse().ok();
    number.filter(|number| (0..count).contains(number)).with_context(|| {
        let known =
            if names.is_empty() { String::new() } else { format!(", or one of {}", names.join(", ")) };
        format!("unknown class, expected 0 to {}{known}: {word}", count - 1)
    })
}
