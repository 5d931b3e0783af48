//! The `ldm` command: parses arguments, calls the libraries and prints the results.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod classifier;
mod commands;
mod generation;
mod interrupt;
mod launch;
mod model;
mod output;
#[cfg(test)]
#[path = "../tests/unit/pages.rs"]
mod pages;
mod progress;
mod report;
mod reporter;
mod sampling;
mod terminal;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: ldm_libtorch::ExitingAllocator = ldm_libtorch::ExitingAllocator;

fn main() -> ExitCode {
    ldm_libtorch::explain_bus_errors();
    report::run(|| match args::Cli::from_args() {
        Ok(cli) => commands::run(cli),
        Err(request) if args::asks_for_details(&request) => commands::version::run(),
        // The text of --help or --version.
        Err(request) if !request.use_stderr() => Ok(request.print().map_err(terminal::StdoutError::from)?),
        Err(usage) => usage.exit(),
    })
}
