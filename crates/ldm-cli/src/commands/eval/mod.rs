//! `ldm eval`: metrics of a first stage and of generated images.

mod clip_score;
mod generation;
mod reconstruction;

use ldm_study::evaluation::{ImageSource, SetOptions};

use crate::args::{DataArgs, EvalCommand, MetricArgs};
use crate::progress::Printer;

pub(crate) fn run(command: &EvalCommand, printer: Printer) -> anyhow::Result<()> {
    match command {
        EvalCommand::Reconstruction(args) => reconstruction::run(args, printer),
        EvalCommand::Generation(args) => generation::run(args, printer),
        EvalCommand::ClipScore(args) => clip_score::run(args, printer),
    }
}

fn source(args: &DataArgs) -> ImageSource {
    ImageSource { path: args.dataset.clone(), size: args.size, strict: args.strict }
}

fn options(args: &MetricArgs) -> SetOptions {
    SetOptions { num_images: args.num_images, batch_size: args.batch_size, features: args.features.clone() }
}
