//! Sizes that a config gives.

use ldm_core::{Error, Result};

/// Refuses sizes below one; `what` names the conditioner.
pub(crate) fn at_least_one(what: &str, sizes: &[(&str, i64)]) -> Result<()> {
    match sizes.iter().find(|(_, value)| *value < 1) {
        None => Ok(()),
        Some((name, value)) => Err(Error::invalid(format!("{what}: {name} must be at least 1, got {value}"))),
    }
}
