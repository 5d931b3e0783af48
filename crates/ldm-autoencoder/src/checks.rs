//! Checks of single config values.

use ldm_core::{Error, MAX_SIZE, Result};

/// Returns the error about the value of `key`.
pub(crate) fn refuse<T>(key: &str, expected: &str, got: impl std::fmt::Display) -> Result<T> {
    Err(Error::invalid(format!("`{key}`: expected {expected}, got {got}")))
}

/// Checks that `size` is positive and not absurd.
pub(crate) fn positive(key: &str, size: i64) -> Result<()> {
    match size {
        1..=MAX_SIZE => Ok(()),
        ..1 => refuse(key, "a positive number", size),
        _ => refuse(key, &format!("at most {MAX_SIZE}"), size),
    }
}
