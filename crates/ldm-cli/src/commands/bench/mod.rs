//! `ldm bench`: how fast a model runs here, and how fast it could.

mod inputs;
mod machine;
mod measure;
mod stages;
mod subject;
mod table;
mod training;

use anyhow::bail;
use ldm_core::device::{device_name, parse_dtype};
use ldm_pipelines::Model;
use serde_json::json;

use self::machine::Machine;
use self::measure::{Measured, Row};
use self::subject::Subject;
use crate::args::{BenchArgs, Stage};
use crate::model;
use crate::progress::Printer;

pub(crate) fn run(args: &BenchArgs, printer: Printer) -> anyhow::Result<()> {
    let (device, kind) = (model::device(&args.device, Some(printer))?, parse_dtype(&args.dtype)?);
    let subject = Subject::find(args, device, kind)?;
    let stages = wanted(args.stage, &subject)?;
    let machine = Machine::measure(device, kind);
    let rows: Vec<Row> = if stages == [Stage::Train] {
        vec![training::time(args, &subject, printer)?]
    } else {
        let model = subject.open()?;
        if let Model::Diffusion(model) = &model {
            model.to_channels_last();
        }
        model::keep_freed_memory(kind);
        let mut rows = Vec::new();
        for stage in stages {
            rows.extend(stages::time(stage, args, &subject, &model, printer)?);
        }
        rows
    };
    // Once more: what else runs here may have slowed the first.
    let machine = machine.or_faster(Machine::measure(device, kind));
    let timed: Vec<Measured> = rows.into_iter().map(|row| row.against(&machine, device)).collect();
    if args.json {
        let document = json!({
            "model": subject.name.display().to_string(),
            "weights": if subject.is_fresh() { "fresh" } else { "loaded" },
            "device": device_name(device),
            "threads": ldm_libtorch::threads(),
            "dtype": args.dtype,
            "ldm": env!("CARGO_PKG_VERSION"),
            "libtorch": ldm_libtorch::TORCH_VERSION,
            "machine": machine,
            "stages": timed,
        });
        println!("{document:#}");
    } else {
        let at = format!("{}, {} threads, {}", device_name(device), ldm_libtorch::threads(), args.dtype);
        println!("{}: {at}; {machine}", subject.name.display());
        print!("{}", table::stages(&timed));
        if args.operations {
            for stage in &timed {
                print!("\n{}", table::operations(stage, &machine));
            }
        }
    }
    Ok(())
}

/// The stages that were asked for and that there are.
fn wanted(asked: Option<Stage>, subject: &Subject) -> anyhow::Result<Vec<Stage>> {
    let name = subject.name.display();
    Ok(match (asked, subject.diffusion().is_some()) {
        (Some(Stage::Unet | Stage::Sample), false) => {
            bail!("{name}: a first stage alone, which has no U-Net: expected autoencoder or train")
        }
        (Some(Stage::Autoencoder), _) if subject.first_stage().is_none() => {
            bail!(
                "{name}: a diffusion model of pixels, which has no first stage: expected unet, sample or train"
            )
        }
        (Some(stage), _) => vec![stage],
        (None, true) if subject.first_stage().is_none() => vec![Stage::Unet, Stage::Sample],
        (None, true) => vec![Stage::Autoencoder, Stage::Unet, Stage::Sample],
        (None, false) => vec![Stage::Autoencoder],
    })
}
