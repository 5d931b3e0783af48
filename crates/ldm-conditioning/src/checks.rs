//! Checks of config values.

use ldm_core::{Error, Result};

/// Checks that sizes are positive; `what` names the conditioner.
pub(crate) fn at_least_one(what: &str, sizes: &[(&str, i64)]) -> Result<()> {
    match sizes.iter().find(|(_, value)| *value < 1) {
        None => Ok(()),
        Some((name, value)) => {
            Err(Error::invalid(format!("{what}: {name}: expected at least 1, got {value}")))
        }
    }
}
