//! Exit codes and error messages.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use ldm_core::memory;
use ldm_core::terminal::one_line;

use crate::terminal::{StdoutError, say};

/// Exit code of a program whose stdout is a closed pipe: that of a shell for SIGPIPE.
const CLOSED_PIPE: u8 = 141;

/// Error of a graceful stop by a signal, with the exit code.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) u8);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Interrupted {}

/// Runs the program. Exit codes: 0 success, 1 error, 2 usage error (by clap), 130 or 143 stopped by a signal, 141 stdout is
/// a closed pipe.
///
/// A failed allocation of libtorch is a panic in tch; it is reported as an error.
pub(crate) fn run(body: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload_as_str().and_then(memory::failed_allocation).is_none() {
            hook(info);
        }
    }));
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => end(&error),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            if let Some(error) = text.and_then(memory::failed_allocation) {
                say(&format!("error: {error}"));
            }
            ExitCode::from(1)
        }
    }
}

/// Prints an error, unless there is none to print, and returns the exit code.
fn end(error: &anyhow::Error) -> ExitCode {
    if let Some(Interrupted(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    if error.downcast_ref().is_some_and(StdoutError::is_closed_pipe) {
        return ExitCode::from(CLOSED_PIPE);
    }
    say(&format!("error: {}", text(error)));
    ExitCode::from(1)
}

/// Returns the message of an error and of the causes that it does not repeat.
fn text(error: &anyhow::Error) -> String {
    let messages: Vec<String> = error.chain().map(ToString::to_string).collect();
    if let Some(out_of_memory) = messages.iter().find_map(|message| memory::failed_allocation(message)) {
        return out_of_memory.to_string();
    }
    let messages: Vec<String> = messages.iter().map(|message| one_line(message)).collect();
    let mut text = messages[0].clone();
    for pair in messages.windows(2).filter(|pair| !pair[0].contains(&pair[1])) {
        text.extend(["\n  caused by: ", &pair[1]]);
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_that_a_message_contains_are_not_repeated() {
        let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let io = ldm_core::Error::io("a.yaml")(denied());
        assert_eq!(text(&io.into()), "a.yaml: permission denied");
        let named = anyhow::anyhow!("a\nerror: b");
        assert_eq!(text(&named), "a\\nerror: b");
        let two = Err::<(), _>(denied()).context("b.yaml").context("--config").unwrap_err();
        assert_eq!(text(&two), "--config\n  caused by: b.yaml\n  caused by: permission denied");
    }
}
