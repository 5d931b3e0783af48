//! The C++ interface, CUDA's half of libtorch, observed operations, and process groups of real processes.

#![allow(clippy::unwrap_used)] // outside `#[test]` functions too a panic is a failed test

mod cuda;
mod cuda_graph;
mod operations;
mod ranks;
mod shim;
mod transfer;
