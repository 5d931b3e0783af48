//! The headers that decide whether a build has NCCL.

#[path = "../../build/nccl.rs"]
mod nccl;

use std::fs;
use std::path::{Path, PathBuf};

use nccl::{HEADERS, headers};

fn touch(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "").unwrap();
}

#[test]
fn all_headers_are_found_or_the_missing_one_is_named() {
    let folder = std::env::temp_dir().join(format!("ldm-nccl-{}", std::process::id()));
    let (root, lib) = (folder.join("torch"), folder.join("torch/lib"));
    touch(&lib.join("libtorch_cpu.so"));
    assert_eq!(headers(&root, &lib), Ok(Vec::new()), "a libtorch for the CPU");
    touch(&lib.join("libtorch_cuda.so"));
    assert_eq!(headers(&root, &lib), Err("nccl.h"), "no wheel at all");
    let wheels = ["nccl", "cuda_runtime", "cuda_crt", "cu13"].map(|wheel| folder.join("nvidia").join(wheel));
    for (index, (wheel, header)) in wheels.iter().zip(HEADERS).enumerate() {
        touch(&wheel.join("include").join(header));
        let expected = HEADERS.get(index + 1).map_or_else(
            || Ok(wheels.iter().map(|wheel| wheel.join("include")).collect::<Vec<PathBuf>>()),
            |missing| Err(*missing),
        );
        let canonical = |found: Vec<PathBuf>| -> Vec<PathBuf> {
            found.iter().map(|path| path.canonicalize().unwrap()).collect()
        };
        assert_eq!(headers(&root, &lib).map(canonical), expected.map(canonical));
    }
    fs::remove_dir_all(folder).unwrap();
}
