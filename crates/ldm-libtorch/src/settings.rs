//! Process-wide switches: determinism, TF32, threads, and the CUDA half of libtorch.

use std::sync::OnceLock;

use crate::ffi;

/// The version of libtorch that this crate is written for.
pub const TORCH_VERSION: &str = "2.11.0";

/// Returns the number of working CUDA devices. The first call loads libtorch's CUDA library, which the linker drops
/// because no symbol of it is used by name; without it GPUs would silently be missing.
pub fn cuda_device_count() -> usize {
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let opened = ffi::open_cuda_library();
        if opened && tch::Cuda::is_available() { tch::Cuda::device_count().max(0) as usize } else { 0 }
    })
}

/// Switches to algorithms whose result does not depend on timing; an operation without one fails with its name.
///
/// CUDA's matrix products also need `CUBLAS_WORKSPACE_CONFIG=:4096:8` in the environment.
///
/// # Panics
/// Never in practice: libtorch accepts both values.
pub fn set_deterministic(on: bool) {
    ffi::set_deterministic(on).expect("a switch");
}

/// Sets whether CUDA may compute f32 products with 10 bits of mantissa, for matrix products (off by default, as in
/// PyTorch) and convolutions (on by default).
///
/// # Panics
/// As [`set_deterministic`].
pub fn set_tf32(on: bool) {
    ffi::set_tf32(on).expect("a switch");
}

/// Sets whether cuDNN times its algorithms on the first call with each shape and keeps the fastest.
///
/// # Panics
/// As [`set_deterministic`].
pub fn set_cudnn_benchmark(on: bool) {
    ffi::set_cudnn_benchmark(on).expect("a switch");
}

/// Seeds libtorch's global generators (CPU and CUDA): dropout and initialization draw from them.
pub fn set_seed(seed: u64) {
    tch::manual_seed(seed as i64);
}

/// Returns the number of threads of an operation on the CPU.
pub fn threads() -> usize {
    tch::get_num_threads().max(1) as usize
}

/// Restarts the program once with `GOMP_SPINCOUNT=1000`, unless the user has set how threads wait. Call it first, for work
/// of minutes.
///
/// The threads of OpenMP spin between operations, by default for milliseconds. Beside another program on the same cores
/// each operation then waits for a thread that is not running: training takes four times as long instead of twice
/// (`docs/guide/performance.md`). libgomp reads the variable when it is loaded, before `main`.
pub fn limit_spinning() {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        let decided =
            ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"].iter().any(|name| std::env::var_os(name).is_some());
        if let (false, Ok(program)) = (decided, std::env::current_exe()) {
            let mut command = std::process::Command::new(program);
            // It returns only if the program cannot be started; this one then goes on.
            let _ = command.args(std::env::args_os().skip(1)).env("GOMP_SPINCOUNT", "1000").exec();
        }
    }
}

/// Sets [`threads`].
pub fn set_threads(count: usize) {
    tch::set_num_threads(count.max(1) as i32);
}
