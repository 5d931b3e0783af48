//! The vocabulary's own tests: configs, devices, files, layers, and the tools of the other crates' tests.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod config;
mod device;
mod files;
mod nn;
mod reuse;
