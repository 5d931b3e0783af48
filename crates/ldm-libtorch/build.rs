//! Compiles `csrc/` against the libtorch torch-sys was built with.

use std::path::{Path, PathBuf};

const SOURCES: [&str; 12] = [
    "error",
    "generator",
    "format",
    "autocast",
    "settings",
    "memory",
    "optim",
    "checkpoint",
    "blob",
    "c10d",
    "nccl",
    "reducer",
];

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    // torch-sys passes on where it found libtorch (its `links = "tch"`); with `doc-only` it passes nothing
    // and there is nothing to compile.
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else { return };
    let root = std::env::var_os("LIBTORCH_INCLUDE")
        .map_or_else(|| Path::new(&lib).parent().map_or_else(PathBuf::new, Path::to_path_buf), PathBuf::from);
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .warnings(false)
        .include("csrc")
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .flag("-std=c++17")
        .flag(format!("-D_GLIBCXX_USE_CXX11_ABI={abi}"))
        .files(SOURCES.iter().map(|name| format!("csrc/{name}.cpp")));
    if let Some(headers) = nccl_headers(&root, Path::new(&lib)) {
        build.define("LDM_NCCL", None).includes(headers);
    }
    build.compile("ldm_torch");
}

/// The folders of NCCL's and CUDA's headers, where libtorch has CUDA: in the wheels beside torch's own.
fn nccl_headers(root: &Path, lib: &Path) -> Option<[PathBuf; 2]> {
    if !lib.join("libtorch_cuda.so").exists() {
        return None;
    }
    // `.libtorch/torch` may be a link; the wheels lie beside what it leads to.
    let wheels = root.canonicalize().ok()?.parent()?.join("nvidia");
    let folder_of = |header: &str| {
        let folders = std::fs::read_dir(&wheels).ok()?;
        let mut found = folders
            .flatten()
            .map(|entry| entry.path().join("include"))
            .filter(|path| path.join(header).exists());
        found.next()
    };
    Some([folder_of("nccl.h")?, folder_of("cuda_runtime_api.h")?])
}
