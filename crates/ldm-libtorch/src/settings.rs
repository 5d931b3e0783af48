//! Process-wide settings: seeds, threads and how they wait.

/// The version of libtorch that this crate is written for.
pub const TORCH_VERSION: &str = "2.11.0";

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
