//! The C++ interface, CUDA's half of libtorch, kernels for CUDA on the emulator, observed operations, and process groups of
//! real processes.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod cuda;
mod cuda_graph;
mod cuda_norm;
mod cuda_sums;
mod operations;
mod ranks;
mod shim;
mod transfer;
