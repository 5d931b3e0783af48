//! One file a command.

mod convert;
mod data;
mod decode;
mod demo;
mod doctor;
mod encode;
mod inspect;
mod reconstruct;
mod sample;
mod train;
mod txt2img;
mod weights;

use crate::args::{Cli, Command};
use crate::interrupt;
use crate::progress::Talk;

/// Runs what was typed.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    let talk = Talk::new(cli.quiet, cli.verbose);
    // Training ends in order by itself; everything else may end at once.
    if !matches!(cli.command, Command::Train(_) | Command::Demo(_)) {
        interrupt::exit_on_signals()?;
    }
    match cli.command {
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) => demo::run(&args, talk),
        Command::Data(command) => data::run(&command),
        Command::Train(args) => train::run(&args, talk),
        Command::Sample(args) => sample::run(&args, talk),
        Command::Txt2img(args) => txt2img::run(&args, talk),
        Command::Encode(args) => encode::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Reconstruct(args) => reconstruct::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Weights(command) => weights::run(&command, talk),
    }
}
