//! Configs, devices, files, layers, and operations that reuse memory.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod config;
mod cuda_kernels;
mod device;
mod files;
mod kernels;
mod nn;
mod reuse;
