//! Input files in `parameters`.

use std::fmt::Write as _;
use std::path::Path;

use ldm_core::{Error, Result};
use sha2::{Digest, Sha256};

/// The first ten hexadecimal digits of the SHA-256 of a file, as AUTOMATIC1111's hashes.
pub(crate) fn hash_of(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let mut hash = String::new();
    for byte in &Sha256::digest(&bytes)[..5] {
        let _ = write!(hash, "{byte:02x}");
    }
    Ok(hash)
}

/// The fields of `parameters` for an input file, such as `Init image`: its name, quoted where it has to be, and its hash.
///
/// # Errors
/// [`Error::Io`].
pub fn input_fields(field: &str, path: &Path) -> Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let quoted = serde_json::to_string(&name).expect("a text");
    let plain = !name.contains([',', ':', '"', '\\']) && quoted.len() == name.len() + 2;
    let name = if plain { name.into_owned() } else { quoted };
    Ok(format!(", {field}: {name}, {field} hash: {}", hash_of(path)?))
}
