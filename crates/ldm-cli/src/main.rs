//! The `ldm` command: words to calls, results to words. The only crate with `anyhow` and with printing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod classifier;
mod commands;
mod generation;
mod images;
mod interrupt;
mod launch;
mod layout_file;
mod model;
mod output;
mod page;
mod previews;
mod progress;
mod report;
mod sampling;
mod weights;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    report::run(|| commands::run(cli))
}
