//! Output on stdout and stderr: a closed pipe or a full disk is an error, and control characters are escaped.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

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
    let mut stdout = io::stdout().lock();
    stdout.write_all(escaped(text).as_bytes()).and_then(|()| stdout.flush()).map_err(StdoutError)
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
    let _ = io::stderr().write_all(format!("{}\n", escaped(line)).as_bytes());
}

/// Returns text with characters escaped that act on a terminal: names in archives, file names and the texts of images may
/// have any.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    let acts = |c: char| is_unsafe(c) && !matches!(c, '\n' | '\t');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if acts(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Returns whether a character is a control character, or changes the direction of the text after it.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_but_not_line_breaks() {
        assert_eq!(escaped("a\tb\nü — 文"), "a\tb\nü — 文");
        assert!(matches!(escaped("plain"), Cow::Borrowed(_)));
        assert_eq!(escaped("\u{1b}]0;t\u{7}\r\u{9b}31m\u{7f}"), "\\u{1b}]0;t\\u{7}\\u{d}\\u{9b}31m\\u{7f}");
        assert_eq!(escaped("\u{202e}gnp"), "\\u{202e}gnp");
    }
}
