//! Limits of configs: a small file must not take much memory or time.

use std::path::Path;

use crate::{Error, Result};

/// The longest config in bytes. CompVis' have 5 kB.
const MAX_LENGTH: u64 = 1 << 20;
/// The most bytes after aliases are expanded, if each stands for the whole file.
const MAX_EXPANDED: usize = 64 << 20;
/// The deepest nesting of brackets, and of lists in one line; the YAML parser takes a time that is quadratic in it.
const MAX_DEPTH: usize = 128;

/// Checks the length of a file before it is read.
///
/// # Errors
/// [`Error::Config`], [`Error::Io`].
pub(super) fn check_length(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
    check(length, path)
}

fn check(length: u64, path: &Path) -> Result<()> {
    if length > MAX_LENGTH {
        return Err(Error::config(
            path,
            format!("expected a config of at most {MAX_LENGTH} bytes, got {length}"),
        ));
    }
    Ok(())
}

/// Checks the length, the nesting and the aliases of a text.
///
/// # Errors
/// [`Error::Config`].
pub(super) fn check_text(text: &str, path: &Path) -> Result<()> {
    check(text.len() as u64, path)?;
    let mut depth = 0_usize;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Error::config(
                path,
                format!("expected at most {MAX_DEPTH} nested brackets, got more"),
            ));
        }
    }
    let lists = |line: &str| {
        line.split_ascii_whitespace().take_while(|word| matches!(*word, "-" | "?" | ":")).count()
    };
    if text.lines().any(|line| lists(line) > MAX_DEPTH) {
        return Err(Error::config(
            path,
            format!("expected at most {MAX_DEPTH} nested lists in a line, got more"),
        ));
    }
    // An anchor has a `&`; without one, a `*` is no alias.
    let aliases = if text.contains('&') { text.matches('*').count() } else { 0 };
    if aliases.saturating_mul(text.len()) > MAX_EXPANDED {
        let got = format!("{aliases} in {} bytes", text.len());
        return Err(Error::config(
            path,
            format!("expected fewer aliases (`*NAME`) in so long a config, got {got}"),
        ));
    }
    Ok(())
}
