//! Checks of config values.

use ldm_core::{Error, MAX_LAYERS, MAX_SIZE, Result};

/// Checks that sizes are positive and not absurd; `what` names the conditioner.
pub(crate) fn at_least_one(what: &str, sizes: &[(&str, i64)]) -> Result<()> {
    for (name, value) in sizes {
        let most = if name.contains("layer") { MAX_LAYERS } else { MAX_SIZE };
        if *value < 1 {
            return Err(Error::invalid(format!("{what}: {name}: expected at least 1, got {value}")));
        }
        if *value > most {
            return Err(Error::invalid(format!("{what}: {name}: expected at most {most}, got {value}")));
        }
    }
    Ok(())
}
