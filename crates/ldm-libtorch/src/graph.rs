//! CUDA graphs.

use tch::{Device, TchError};

use crate::ffi::RawGraph;

/// A recorded sequence of kernel launches, which is launched as one. `torch.cuda.CUDAGraph`.
///
/// It reads and writes the tensors that it was recorded with, at their places in memory, and keeps none of them alive.
/// Code on the host runs while recording only: branches, sizes and numbers are those of the recording.
#[derive(Debug)]
pub struct CudaGraph(RawGraph);

impl CudaGraph {
    /// Runs `body` three times on a stream of its own, of which the last is recorded instead of run: every
    /// [`CudaGraph::replay`] writes what that one returned. All graphs of a process share the memory of what `body` drops.
    ///
    /// # Errors
    /// Without a CUDA device, and when `body` panics, as it does where it waits for the device: that cannot be
    /// recorded. After an error the random generator of the device refuses to draw.
    pub fn record<T>(device: Device, body: impl FnMut() -> T) -> Result<(Self, T), TchError> {
        let Device::Cuda(index) = device else {
            return Err(TchError::Torch(format!("expected a CUDA device, got {device:?}")));
        };
        RawGraph::record(index, body).map(|(graph, result)| (Self(graph), result))
    }

    /// Launches the sequence on the current stream, without waiting for it.
    ///
    /// # Panics
    /// When the device is lost.
    pub fn replay(&self) {
        self.0.replay().expect("a recorded graph");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_devices_have_no_graphs() {
        let mut runs = 0;
        let error = CudaGraph::record(Device::Cpu, || runs += 1).unwrap_err().to_string();
        assert!(error.contains("expected a CUDA device, got Cpu"), "{error}");
        assert_eq!(runs, 0);
    }

    /// The words of the members between two lines: types are CUDA's or `void *`, the rest is compared.
    fn members(text: &str, from: &str, to: &str) -> Vec<String> {
        let text = text.split_once(from).expect("the first line").1.split_once(to).expect("the last line").0;
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<String>();
        let declarations =
            code.split(';').filter(|part| !part.contains("static ") && !part.trim().is_empty());
        declarations
            .map(|part| {
                let name = part.split(['=', '{']).next().unwrap_or_default();
                name.split_whitespace().last().unwrap_or_default().trim_start_matches('*').to_owned()
            })
            .collect()
    }

    #[test]
    fn the_members_are_those_of_the_header() {
        let header = std::env::var_os("LIBTORCH")
            .map(|libtorch| std::path::Path::new(&libtorch).join("include/ATen/cuda/CUDAGraph.h"));
        let Some(Ok(header)) = header.map(std::fs::read_to_string) else {
            return println!("skipped: no ATen/cuda/CUDAGraph.h in LIBTORCH");
        };
        let own = members(include_str!("../csrc/graph.cpp"), "struct Members {", "\n};");
        assert_eq!(own, members(&header, " protected:", "\n};"));
        assert_eq!(own.len(), 11);
    }
}
