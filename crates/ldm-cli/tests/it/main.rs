//! The tests of `ldm-cli`: stdout, stderr, exit codes and files of every command, and the invariants of the workspace.

#![allow(clippy::unwrap_used, reason = "clippy exempts test functions only, not their helpers")]

mod bench;
mod channels;
mod classifier;
mod cli;
mod compare_f;
mod convert;
mod crash;
mod embedded;
mod eval;
mod features;
mod help;
mod hostile;
mod inputs;
mod inspect;
mod kill;
mod lora;
mod outputs;
mod pages;
mod publishing;
mod ranks;
mod redo;
mod retrieve;
mod serve;
mod signals;
mod tasks;
mod terminal;
mod tidy;
mod txt2img;
mod unusable_files;
mod weighted;
mod weights;

/// The program under test.
const LDM: &str = env!("CARGO_BIN_EXE_ldm");
