//! Functions of libtorch that tch does not bind.
//!
//! tch 0.24 has no generators with their own state, no memory formats, no choice of autocast's dtype, no switches for
//! determinism and TF32, no memory statistics, no fused optimizer steps, no gradient checkpointing, no process groups
//! and no tensors over memory-mapped files. This crate adds them through a small C interface (`csrc/`), compiled against
//! the libtorch that torch-sys found. Its `unsafe` code is in `ffi.rs` and `ffi/`; no other crate of the
//! workspace but `ldm-kernels`, whose kernels [`kernels`] runs on tensors, has any.
//!
//! [`ProcessGroup`] is libtorch's c10d: distributed training, with gloo on the CPU and NCCL on CUDA.

mod autocast;
mod c10d;
mod checkpoint;
mod cuda;
mod cuda_features;
pub mod cuda_kernels;
mod dtype;
mod env;
mod ffi;
mod format;
mod generator;
mod graph;
pub mod kernels;
mod mapped;
mod memory;
mod operations;
mod optim;
mod process_group;
mod settings;
mod transfer;

pub use autocast::{Autocast, autocast, is_autocast};
pub use c10d::C10d;
pub use checkpoint::{SharedModule, checkpoint};
pub use cuda::{
    CudaLibrary, SwitchScope, cuda_capability, cuda_device_count, cuda_library, deterministic_scope,
    set_cuda_device, set_cudnn_benchmark, set_deterministic, set_tf32, tf32, tf32_scope,
};
pub use cuda_features::{CudaFeatures, cuda_features};
pub use env::RankEnv;
pub use ffi::ExitingAllocator;
pub use format::{
    channels_last, infers_in_channels_last, is_channels_last, prefers_channels_last, to_channels_last,
};
pub use generator::Generator;
pub use graph::CudaGraph;
pub use mapped::{MappedFile, MappedPages, explain_bus_errors, map_file, map_open_file};
pub use memory::{
    CudaMemory, cuda_memory, empty_cuda_cache, keep_freed_memory, peak_resident_bytes, reset_cuda_peak,
};
pub use operations::{Operation, count_operations, is_counting_operations};
pub use optim::{
    AdamWLists, AdamWStep, differentiable_gradients, forget_gradients, fused_adamw, gradients, lerp_all,
    total_norm,
};
pub use process_group::{CollectiveWork, GradientReducer, GroupError, Overlap, ProcessGroup, Reduce, Single};
pub use settings::{TORCH_VERSION, limit_spinning, set_seed, set_threads, threads};
pub use transfer::{Download, pin, upload};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
