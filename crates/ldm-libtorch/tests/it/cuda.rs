//! CUDA's half of libtorch: opened in time where there is a GPU, and silent where there is none.

use std::path::Path;
use std::process::Command;

use ldm_libtorch::{
    CudaLibrary, cuda_capability, cuda_device_count, cuda_library, set_cuda_device, set_seed,
};

/// The first use of libtorch in the process of [`a_seed_before_anything_else_keeps_cuda`].
const CHILD: &str = "cuda::a_seed_before_anything_else_keeps_cuda";

#[test]
fn the_library_is_opened_exactly_where_there_is_a_gpu() {
    let gpu = ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"].iter().any(|path| Path::new(path).exists());
    match cuda_library() {
        CudaLibrary::NoDevice => assert!(!gpu),
        CudaLibrary::Open => assert!(gpu),
        CudaLibrary::Failed(reason) => assert!(gpu && reason.contains(".so"), "{reason}"),
    }
}

#[test]
fn a_seed_before_anything_else_keeps_cuda() {
    if std::env::var_os("LDM_TEST_CUDA_CHILD").is_some() {
        // libtorch looks for CUDA here.
        set_seed(1);
        let open = cuda_library() == CudaLibrary::Open;
        assert_eq!(tch::utils::has_cudart(), open);
        return;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD])
        .env("LDM_TEST_CUDA_CHILD", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn devices_are_numbered_from_0_to_their_count() {
    let count = cuda_device_count();
    for device in 0..count {
        assert!(cuda_capability(device).unwrap() >= (5, 0));
        set_cuda_device(device).unwrap();
    }
    for device in [count, usize::MAX] {
        let error = cuda_capability(device).unwrap_err();
        let named = ["libcuda.so.1", "cuInit", "cuDeviceGet"].iter().any(|name| error.contains(name));
        assert!(named, "{error}");
    }
    if count == 0 {
        let error = set_cuda_device(0).unwrap_err();
        assert!(!error.is_empty() && !error.contains('\n'), "{error}");
    } else {
        set_cuda_device(0).unwrap();
    }
}
