//! Commands, one file each.

mod bench;
mod compare_f;
mod completions;
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
mod knn2img;
mod layout2img;
mod man;
mod outpaint;
mod reconstruct;
mod redo;
mod retrieve;
mod sample;
mod semantic2img;
mod serve;
pub(crate) mod train;
mod txt2img;
mod upscale;
pub(crate) mod version;
mod weights;

use crate::args::{Cli, Command};
use crate::interrupt;
use crate::progress::Printer;

/// Runs a command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    let cli = redo::resolve(cli)?;
    let printer = Printer::new(cli.quiet, cli.verbose);
    if matches!(cli.command, Command::Train(_) | Command::Demo(_) | Command::CompareF(_)) {
        ldm_libtorch::limit_spinning();
        ldm_libtorch::keep_freed_memory();
    } else if !matches!(cli.command, Command::Serve(_)) {
        // Training and the server handle signals themselves; every other command may exit at once.
        interrupt::exit_on_signals()?;
    }
    match cli.command {
        Command::Doctor(args) => doctor::run(&args),
        Command::Demo(args) => demo::run(&args, printer),
        Command::Data(command) => data::run(&command),
        Command::Train(args) => train::run(&args, printer),
        Command::Sample(args) => sample::run(&args, printer),
        Command::Txt2img(args) => txt2img::run(&args, printer),
        Command::Knn2img(args) => knn2img::run(&args, printer),
        Command::Retrieve(command) => retrieve::run(&command, printer),
        Command::Img2img(args) => img2img::run(&args, printer),
        Command::Inpaint(args) => inpaint::run(&args, printer),
        Command::Outpaint(args) => outpaint::run(&args, printer),
        Command::Upscale(args) => upscale::run(&args, printer),
        Command::Layout2img(args) => layout2img::run(&args, printer),
        Command::Semantic2img(args) => semantic2img::run(&args, printer),
        Command::Redo(_) => unreachable!("replaced by `resolve`"),
        Command::Encode(args) => encode::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Reconstruct(args) => reconstruct::run(&args),
        Command::Eval(command) => eval::run(&command, printer),
        Command::Bench(args) => bench::run(&args, printer),
        Command::CompareF(args) => compare_f::run(&args, printer),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Serve(args) => serve::run(&args, printer),
        Command::Weights(command) => weights::run(&command, printer),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}
