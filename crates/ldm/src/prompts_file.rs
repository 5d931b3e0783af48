//! Files of prompts.

use std::io::{self, Read as _};
use std::path::Path;

use ldm_core::{Error, Result, text};

/// Reads prompts, one per line without empty ones, from the file at `path`, or from stdin for `-`.
///
/// # Errors
/// As [`text::read`]; [`Error::Format`] without prompts.
pub fn read_prompts(path: &Path) -> Result<Vec<String>> {
    let text = if path.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map_err(Error::io(Path::new("stdin")))?;
        text::decode(&bytes).map_err(|error| Error::format("stdin", error))?
    } else {
        text::read(path)?
    };
    let prompts: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
    if prompts.is_empty() {
        return Err(Error::format(path, "expected one prompt per line, got none"));
    }
    Ok(prompts)
}
