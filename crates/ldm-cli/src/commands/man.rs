//! `ldm man`: manual pages.

use std::path::Path;

use anyhow::{Context, bail};
use clap_mangen::Man;
use ldm_core::files;

use crate::args::{Cli, ManArgs};
use crate::terminal;

pub(crate) fn run(args: &ManArgs) -> anyhow::Result<()> {
    let mut command = Cli::complete();
    command.build();
    match &args.out {
        None => Ok(terminal::write_bytes(&page(command)?)?),
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            write(command, folder, args.force)
        }
    }
}

/// Renders the page of one command.
fn page(command: clap::Command) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}

/// Writes the pages of a command and of the commands in it: `ldm.1`, `ldm-txt2img.1`, …
fn write(command: clap::Command, folder: &Path, force: bool) -> anyhow::Result<()> {
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        write(inner.clone(), folder, force)?;
    }
    let path = folder.join(Man::new(command.clone()).get_filename());
    if path.exists() && !force {
        bail!("{}: expected a new file, got an existing one; try --force", path.display());
    }
    Ok(files::write_bytes(&path, &page(command)?)?)
}
