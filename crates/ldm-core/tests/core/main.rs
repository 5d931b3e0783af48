//! The vocabulary's own tests: configs, devices, files, layers, and the tools of the other crates' tests.

mod config;
mod device;
mod files;
mod nn;
