//! Sizes a network can take.

use crate::{Error, Result};

/// The most channels, tokens, classes or codes of a layer.
pub const MAX_SIZE: i64 = 1 << 24;

/// The most layers or blocks in a row.
pub const MAX_LAYERS: i64 = 1 << 10;

/// Checks that height and width of `what` are positive multiples of `factor`.
///
/// # Errors
/// [`Error::Invalid`] with the nearest sizes.
pub fn check_multiple(what: &str, size: [i64; 2], factor: i64) -> Result<()> {
    if size.iter().all(|side| *side > 0 && side % factor == 0) {
        return Ok(());
    }
    let below = size.map(|side| (side.div_euclid(factor) * factor).max(factor));
    let above = size.map(|side| ((side + factor - 1).div_euclid(factor) * factor).max(factor));
    let nearest = if below == above {
        format!("{}x{}", below[0], below[1])
    } else {
        format!("{}x{} or {}x{}", below[0], below[1], above[0], above[1])
    };
    Err(Error::invalid(format!(
        "{what}: expected height and width in multiples of {factor}, got {}x{}; try {nearest}",
        size[0], size[1]
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiples_pass() {
        for size in [[4, 4], [8, 12], [64, 4]] {
            check_multiple("image", size, 4).unwrap();
        }
    }

    #[test]
    fn errors_name_the_nearest_sizes() {
        for (size, message) in [
            ([10, 12], "got 10x12; try 8x12 or 12x12"),
            ([3, 9], "got 3x9; try 4x8 or 4x12"),
            ([0, 8], "got 0x8; try 4x8"),
            ([-3, 8], "got -3x8; try 4x8"),
        ] {
            let error = check_multiple("image", size, 4).unwrap_err().to_string();
            assert_eq!(error, format!("image: expected height and width in multiples of 4, {message}"));
        }
    }
}
