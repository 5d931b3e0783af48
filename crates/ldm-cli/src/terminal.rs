//! Output on stdout and stderr: a closed pipe or a full disk is an error, and control characters are escaped.

use std::fmt;
use std::io::{self, Write};

use ldm_core::terminal::{escaped, is_unsafe, shortened};
use serde_json::Value;

/// A failed write to stdout.
#[derive(Debug)]
pub(crate) struct StdoutError(io::Error);

impl StdoutError {
    /// Returns whether the reader of a pipe has closed it.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl From<io::Error> for StdoutError {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for StdoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stdout: {}", self.0)
    }
}

impl std::error::Error for StdoutError {}

/// Writes formatted text to stdout, as `print!`, which panics instead of failing.
macro_rules! out {
    ($($text:tt)*) => { $crate::terminal::write(&format!($($text)*)) };
}

/// Writes a formatted line to stdout, as `println!`, which panics instead of failing.
macro_rules! outln {
    ($($text:tt)*) => { $crate::terminal::write(&format!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {out, outln};

/// Writes text to stdout.
pub(crate) fn write(text: &str) -> Result<(), StdoutError> {
    write_bytes(escaped(text).as_bytes())
}

/// Writes bytes of our own making to stdout.
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<(), StdoutError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(StdoutError)
}

/// Writes a JSON document and a newline to stdout; indented unless `line`.
pub(crate) fn write_json(document: &Value, line: bool) -> Result<(), StdoutError> {
    let text = if line { document.to_string() } else { format!("{document:#}") };
    // Unsafe characters occur only in strings, where JSON has its own escape; serde_json escapes those below U+0020.
    let escape = |c: char| match c {
        '\n' => c.to_string(),
        _ if is_unsafe(c) => format!("\\u{:04x}", c as u32),
        _ => c.to_string(),
    };
    let mut stdout = io::stdout().lock();
    let text = text.chars().map(escape).collect::<String>() + "\n";
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(StdoutError)
}

/// Writes a line to stderr in one call, since child processes share it.
pub(crate) fn say(line: &str) {
    // A closed stderr is not an error.
    let _ = io::stderr().write_all(format!("{}\n", escaped(&shortened(line))).as_bytes());
}
