//! One file a command.

mod bench;
mod compare_f;
mod convert;
mod data;
mod decode;
mod demo;
mod doctor;
mod encode;
mod eval;
mod filling;
mod img2img;
mod inpaint;
mod inspect;
mod layout2img;
mod outpaint;
mod reconstruct;
mod sample;
mod semantic2img;
mod train;
mod txt2img;
mod upscale;
mod weights;

use crate::args::{Cli, Command};
use crate::interrupt;
use crate::progress::Talk;

/// Runs what was typed.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    let talk = Talk::new(cli.quiet, cli.verbose);
    if matches!(cli.command, Command::Train(_) | Command::Demo(_) | Command::CompareF(_)) {
        ldm_libtorch::keep_freed_memory();
    } else {
        // Training ends in order by itself; everything else may end at once.
        interrupt::exit_on_signals()?;
    }
    match cli.command {
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) => demo::run(&args, talk),
        Command::Data(command) => data::run(&command),
        Command::Train(args) => train::run(&args, talk),
        Command::Sample(args) => sample::run(&args, talk),
        Command::Txt2img(args) => txt2img::run(&args, talk),
        Command::Img2img(args) => img2img::run(&args, talk),
        Command::Inpaint(args) => inpaint::run(&args, talk),
        Command::Outpaint(args) => outpaint::run(&args, talk),
        Command::Upscale(args) => upscale::run(&args, talk),
        Command::Layout2img(args) => layout2img::run(&args, talk),
        Command::Semantic2img(args) => semantic2img::run(&args, talk),
        Command::Encode(args) => encode::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Reconstruct(args) => reconstruct::run(&args),
        Command::Eval(command) => eval::run(&command, talk),
        Command::Bench(args) => bench::run(&args, talk),
        Command::CompareF(args) => compare_f::run(&args, talk),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Weights(command) => weights::run(&command, talk),
    }
}
