//! `ldm bench`: the speed of a model on this machine.

use anyhow::Context;
use ldm_bench::{
    BenchConfig, BenchEvent, BenchStage, BenchSubject, bench, operation_table, shape_text, stage_table,
};
use ldm_core::device::{device_name, dtype_name, parse_dtype_for};
use serde_json::json;
use tch::{Device, Kind};

use crate::args::{BenchArgs, StageArg};
use crate::model;
use crate::progress::Printer;
use crate::terminal::{self, out, outln};

pub(crate) fn run(args: &BenchArgs, printer: Printer) -> anyhow::Result<()> {
    let device = model::device(&args.device, Some(printer))?;
    let kind = parse_dtype_for(&args.dtype, device)?;
    let tf32 = device.is_cuda() && kind == Kind::Float && ldm_libtorch::tf32();
    let mut show = |event: BenchEvent| match event {
        BenchEvent::Stage { stage, shape } => printer.say(&format!("{stage} {}", shape_text(shape))),
        BenchEvent::Note(note) => Printer::warn(note),
    };
    let subject = subject(args, device, kind, &mut show)?;
    let stage = args.stage.map(|stage| match stage {
        StageArg::Autoencoder => BenchStage::Autoencoder,
        StageArg::Unet => BenchStage::Unet,
        StageArg::Sample => BenchStage::Sample,
        StageArg::Train => BenchStage::Train,
    });
    let config = BenchConfig { batch_size: args.batch_size, steps: args.steps, repeats: args.repeats };
    let report = bench(&subject, stage, config, &mut show)?;
    if args.json {
        let document = json!({
            "model": subject.name.display().to_string(),
            "weights": if subject.is_fresh() { "fresh" } else { "loaded" },
            "device": device_name(device),
            "threads": ldm_libtorch::threads(),
            "dtype": dtype_name(kind),
            "tf32": tf32,
            "ldm": env!("CARGO_PKG_VERSION"),
            "libtorch": ldm_libtorch::TORCH_VERSION,
            "machine": report.machine,
            "stages": report.stages,
        });
        terminal::write_json(&document, false)?;
        return Ok(());
    }
    let dtype = format!("{}{}", dtype_name(kind), if tf32 { " by TF32" } else { "" });
    let at = format!("{}, {} threads, {dtype}", device_name(device), ldm_libtorch::threads());
    outln!("{}: {at}; {}", subject.name.display(), report.machine)?;
    out!("{}", stage_table(&report.stages))?;
    if args.operations {
        for stage in &report.stages {
            out!("\n{}", operation_table(stage, &report.machine))?;
        }
    }
    Ok(())
}

fn subject(
    args: &BenchArgs,
    device: Device,
    kind: Kind,
    show: &mut dyn FnMut(BenchEvent),
) -> anyhow::Result<BenchSubject> {
    let size = args.height.zip(args.width).map(Into::into);
    Ok(if let Some(path) = &args.model {
        BenchSubject::from_model(path, args.config.as_deref(), size, device, kind, show)?
    } else {
        let path = args.config.as_ref().context("expected --model or --config")?;
        BenchSubject::from_config(path, size, device, kind)?
    })
}
