//! `ldm eval`: metrics of a first stage, of a diffusion model and of generated images.

mod clip_score;
mod generation;
mod paired;
mod rate_distortion;
mod reconstruction;

use ldm_study::evaluation::{ImageSource, SetOptions};
use serde_json::Value;

use crate::args::{DataArgs, EvalCommand, MetricArgs};
use crate::progress::Printer;
use crate::terminal::{self, StdoutError, outln};

pub(crate) fn run(command: &EvalCommand, printer: Printer) -> anyhow::Result<()> {
    match command {
        EvalCommand::Reconstruction(args) => reconstruction::run(args, printer),
        EvalCommand::Generation(args) => generation::run(args, printer),
        EvalCommand::Paired(args) => paired::run(args, printer),
        EvalCommand::ClipScore(args) => clip_score::run(args, printer),
        EvalCommand::RateDistortion(args) => rate_distortion::run(args, printer),
    }
}

fn source(args: &DataArgs) -> ImageSource {
    ImageSource { path: args.dataset.clone(), size: args.size, strict: args.strict }
}

fn options(args: &MetricArgs) -> SetOptions {
    SetOptions { num_images: args.num_images, batch_size: args.batch_size, features: args.features.clone() }
}

/// Prints the document of an evaluation, or its table.
fn print(document: &Value, table: &[String], json: bool) -> Result<(), StdoutError> {
    if json {
        return terminal::write_json(document, false);
    }
    table.iter().try_for_each(|line| outln!("{line}"))
}
