//! Parts of CUDA that are found at run time.

use crate::ffi::LateTable;
use crate::settings::cuda_device_count;

/// Parts of CUDA that are found at run time, each usable, or the reason why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaFeatures {
    /// CUDA graphs: [`CudaGraph`](crate::CudaGraph).
    pub graphs: Result<(), String>,
    /// The driver's functions that load and launch kernels of our own.
    pub kernels: Result<(), String>,
}

/// Returns the parts of CUDA that this process can use.
pub fn cuda_features() -> CudaFeatures {
    let found = |table: LateTable| {
        if cuda_device_count() == 0 {
            return Err("no CUDA device".into());
        }
        table.check().map_err(|cause| crate::ffi::message(&cause))
    };
    CudaFeatures { graphs: found(LateTable::Graph), kernels: found(LateTable::Driver) }
}
