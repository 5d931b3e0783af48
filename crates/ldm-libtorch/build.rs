//! Compiles `csrc/` against the libtorch torch-sys was built with.

use std::path::{Path, PathBuf};

const SOURCES: [&str; 20] = [
    "error",
    "generator",
    "format",
    "autocast",
    "settings",
    "memory",
    "late",
    "operations",
    "kernels",
    "driver",
    "launch",
    "fused",
    "fused_norm",
    "fused_sums",
    "optim",
    "checkpoint",
    "blob",
    "c10d",
    "nccl",
    "reducer",
];

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    // torch-sys passes the place of libtorch (by its `links = "tch"`); with `doc-only` it passes nothing, and there is
    // nothing to compile.
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
        .include("kernels")
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .flag("-std=c++17")
        .flag(format!("-D_GLIBCXX_USE_CXX11_ABI={abi}"))
        .files(SOURCES.iter().map(|name| format!("csrc/{name}.cpp")));
    // For tests; a release has no use for it.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        build.define("LDM_WITH_EMULATOR", None).file("csrc/emulator.cpp");
    }
    if let Some(headers) = nccl_headers(&root, Path::new(&lib)) {
        build.define("LDM_NCCL", None).includes(headers);
        for library in ["torch_cuda", "c10_cuda"] {
            println!("cargo:rustc-link-lib={library}");
        }
    }
    build.compile("ldm_torch");
}

/// The include folders of NCCL and CUDA, if libtorch has CUDA: in the wheels next to torch's own. All or none: without
/// them ldm is built without NCCL, and requesting it is an error.
fn nccl_headers(root: &Path, lib: &Path) -> Option<Vec<PathBuf>> {
    if !lib.join("libtorch_cuda.so").exists() {
        return None;
    }
    // `.libtorch/torch` may be a link; the wheels lie next to its target.
    let wheels = root.canonicalize().ok()?.parent()?.join("nvidia");
    let folders: Vec<PathBuf> =
        std::fs::read_dir(wheels).ok()?.flatten().map(|entry| entry.path().join("include")).collect();
    let needed = ["nccl.h", "cuda_runtime_api.h", "crt/host_config.h", "nv/target"];
    needed.iter().map(|header| folders.iter().find(|folder| folder.join(header).exists()).cloned()).collect()
}
