//! Checks of single config values.

use ldm_core::{Error, Result};

/// Returns the error about the value of `key`.
pub(crate) fn refuse<T>(key: &str, expected: &str, got: impl std::fmt::Display) -> Result<T> {
    Err(Error::invalid(format!("`{key}`: expected {expected}, got {got}")))
}

/// Checks that `size` is positive.
pub(crate) fn positive(key: &str, size: i64) -> Result<()> {
    if size > 0 { Ok(()) } else { refuse(key, "a positive number", size) }
}
