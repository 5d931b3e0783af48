//! The headers of NCCL and CUDA, which lie in wheels next to libtorch's own.

use std::path::{Path, PathBuf};

/// The headers that libtorch's NCCL backend includes.
pub(crate) const HEADERS: [&str; 4] = ["nccl.h", "cuda_runtime_api.h", "crt/host_config.h", "nv/target"];

/// The folders of [`HEADERS`] for a libtorch in `root` with its libraries in `lib`: all of them, none where libtorch has
/// no CUDA, or the first header that is missing.
pub(crate) fn headers(root: &Path, lib: &Path) -> Result<Vec<PathBuf>, &'static str> {
    if !lib.join("libtorch_cuda.so").exists() {
        return Ok(Vec::new());
    }
    // `.libtorch/torch` may be a link; the wheels lie next to its target.
    let wheels = root.canonicalize().ok().and_then(|root| Some(root.parent()?.join("nvidia")));
    let entries = wheels.and_then(|wheels| std::fs::read_dir(wheels).ok()).into_iter().flatten().flatten();
    let folders: Vec<PathBuf> = entries.map(|entry| entry.path().join("include")).collect();
    let find = |header| folders.iter().find(|folder| folder.join(header).exists()).cloned().ok_or(header);
    HEADERS.into_iter().map(find).collect()
}
