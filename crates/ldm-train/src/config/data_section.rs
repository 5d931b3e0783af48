//! The datasets of a config file, without its model.

use std::path::Path;

use ldm_core::{Result, config, text};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::data_module::{DataConfig, DataModule};
use super::paths::make_absolute;

/// The sections of a config file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    data: DataConfig,
    #[serde(rename = "model", default)]
    _model: IgnoredAny,
    #[serde(rename = "train", default)]
    _train: IgnoredAny,
    #[serde(rename = "lightning", default)]
    _lightning: IgnoredAny,
}

impl DataModule {
    /// Reads only `data` of a config file, so that the first stage it names may be missing. Paths are looked up as in
    /// [`RunConfig::read`](crate::RunConfig::read).
    ///
    /// # Errors
    /// [`Error::Io`](ldm_core::Error::Io), or [`Error::Config`](ldm_core::Error::Config) with the key, the expected
    /// value, and the line.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = text::read(path)?;
        // Parsed as written first, so that errors have the file's line numbers.
        let _: Sections = config::parse(&text, path, &[])?;
        let mut tree = config::merge(&text, path, &[])?;
        make_absolute(&mut tree, path.parent().unwrap_or(Path::new(".")));
        let sections: Sections = config::parse(&config::to_text(&tree), path, &[])?;
        let DataConfig::DataModule(data) = sections.data;
        Ok(data)
    }
}
