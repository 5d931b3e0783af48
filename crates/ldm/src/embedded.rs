//! The model inside the program.

use std::path::PathBuf;

use ldm_core::Result;

/// The name of the embedded text model, where there is one: with the feature `embedded-model`.
pub const EMBEDDED_MODEL: Option<&str> = if cfg!(feature = "embedded-model") { Some("emoji") } else { None };

/// The path of a model: `path` itself, or the folder of the embedded model of that name, which is written into the user's
/// cache at its first use. A file or folder of that name comes first.
///
/// # Errors
/// [`ldm_core::Error::Io`] when the cache cannot be written; [`ldm_core::Error::Invalid`] when there is none.
pub fn model_path(path: PathBuf) -> Result<PathBuf> {
    #[cfg(feature = "embedded-model")]
    let path = ldm_models::resolve(path)?;
    Ok(path)
}
