//! Parts of CUDA that are found at run time.

use crate::cuda_device_count;
use crate::ffi::{LateTable, message};

/// Parts of CUDA that are found at run time, each usable, or the reason why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaFeatures {
    /// CUDA graphs: [`CudaGraph`](crate::CudaGraph).
    pub graphs: Result<(), String>,
    /// The driver's functions that load and launch kernels of our own.
    pub kernels: Result<(), String>,
    /// NCCL, for training on several GPUs.
    pub nccl: Result<(), String>,
}

/// Returns the parts of CUDA that this process can use.
pub fn cuda_features() -> CudaFeatures {
    let found = |table: LateTable| {
        if cuda_device_count() == 0 {
            return Err("no CUDA device".into());
        }
        table.check().map_err(|cause| message(&cause))
    };
    CudaFeatures {
        graphs: found(LateTable::Graph),
        kernels: found(LateTable::Driver),
        nccl: found(LateTable::Nccl),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_works_or_says_why_not() {
        let CudaFeatures { graphs, kernels, nccl } = cuda_features();
        for part in [graphs, kernels, nccl] {
            match part {
                Ok(()) => assert!(cuda_device_count() > 0),
                Err(reason) => assert!(reason == "no CUDA device" || reason.contains(".so"), "{reason}"),
            }
        }
    }
}
