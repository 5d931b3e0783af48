//! `ldm eval`: numbers for what is otherwise looked at.

mod clip_score;
mod generation;
mod maker;
mod reconstruction;
mod reference;
mod set;
mod shown;

use crate::args::EvalCommand;
use crate::progress::Printer;

pub(crate) fn run(command: &EvalCommand, printer: Printer) -> anyhow::Result<()> {
    match command {
        EvalCommand::Reconstruction(args) => reconstruction::run(args, printer),
        EvalCommand::Generation(args) => generation::run(args, printer),
        EvalCommand::ClipScore(args) => clip_score::run(args, printer),
    }
}
