//! `ldm completions`: completions of a shell.

use crate::args::{Cli, CompletionsArgs};
use crate::terminal;

pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::complete(), "ldm", &mut script);
    Ok(terminal::write_bytes(&script)?)
}
