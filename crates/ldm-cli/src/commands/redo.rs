//! `ldm redo`: an image again, from the parameters in its PNG.

use ldm::Redo;

use crate::args::{Cli, Command};
use crate::progress::Printer;

/// Replaces `redo` by the command that made the image.
pub(crate) fn resolve(cli: Cli) -> anyhow::Result<Cli> {
    let Command::Redo(args) = &cli.command else { return Ok(cli) };
    let Redo { arguments, notes } = Redo::read(&args.image, &args.options)?;
    for note in &notes {
        Printer::warn(note);
    }
    let global =
        [(cli.quiet, "--quiet"), (cli.verbose, "--verbose")].map(|(given, flag)| given.then_some(flag));
    let words = ["ldm"].into_iter().chain(global.into_iter().flatten()).map(String::from).chain(arguments);
    Ok(Cli::from_words(words).unwrap_or_else(|usage| usage.exit()))
}
