//! Exit codes and error messages.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// Writes a line to stderr in one call, since child processes share it.
pub(crate) fn say(line: &str) {
    // A closed stderr is not an error.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Error of a graceful stop by a signal, with the exit code.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) u8);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Interrupted {}

/// Runs the program. Exit codes: 0 success, 1 error, 2 usage error (by clap), 130 or 143 stopped by a signal.
///
/// CUDA's "out of memory" is a panic in tch; it is reported as an error.
pub(crate) fn run(body: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload_as_str().is_some_and(is_out_of_memory) {
            hook(info);
        }
    }));
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            if let Some(Interrupted(code)) = error.downcast_ref() {
                return ExitCode::from(*code);
            }
            let causes: Vec<String> =
                error.chain().skip(1).map(|cause| format!("\n  caused by: {cause}")).collect();
            say(&format!("error: {error}{}", causes.concat()));
            ExitCode::from(1)
        }
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            if text.is_some_and(is_out_of_memory) {
                say("error: the GPU is out of memory; try a smaller --batch-size or --dtype bf16");
            }
            ExitCode::from(1)
        }
    }
}

fn is_out_of_memory(text: &str) -> bool {
    text.contains("CUDA out of memory")
}
