//! `ldm eval`: numbers for what is otherwise looked at.

mod clip_score;
mod generation;
mod maker;
mod reconstruction;
mod reference;
mod set;
mod shown;

use crate::args::EvalCommand;
use crate::progress::Talk;

pub(crate) fn run(command: &EvalCommand, talk: Talk) -> anyhow::Result<()> {
    match command {
        EvalCommand::Reconstruction(args) => reconstruction::run(args, talk),
        EvalCommand::Generation(args) => generation::run(args, talk),
        EvalCommand::ClipScore(args) => clip_score::run(args, talk),
    }
}
