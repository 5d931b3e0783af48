//! Compiles `csrc/` against the libtorch torch-sys was built with.

use std::path::{Path, PathBuf};

const SOURCES: [&str; 23] = [
    "error",
    "generator",
    "format",
    "autocast",
    "settings",
    "cuda",
    "memory",
    "late",
    "graph",
    "operations",
    "kernels",
    "driver",
    "launch",
    "fused",
    "fused_norm",
    "fused_sums",
    "optim",
    "transfer",
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
    build.compile("ldm_torch");
}
