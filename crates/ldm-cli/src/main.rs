//! The `ldm` command: parses arguments, calls the libraries and prints the results.
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
mod previews;
mod progress;
mod report;
mod reporter;
mod sampling;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    report::run(|| commands::run(cli))
}
