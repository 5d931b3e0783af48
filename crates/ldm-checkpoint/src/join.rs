//! Several checkpoints as one.

use std::collections::BTreeMap;
use std::path::Path;

use super::Checkpoint;
use ldm_core::{Error, Result};

impl Checkpoint {
    /// The parts of a model that lie in files of their own as one checkpoint at `path`, each with its names below the
    /// prefix beside it. Of the metadata those that come first are kept.
    ///
    /// # Errors
    /// [`Error::Format`] when two parts have a tensor of one name, or there is no part.
    pub fn join(path: impl AsRef<Path>, parts: Vec<(&str, Self)>) -> Result<Self> {
        let path = path.as_ref();
        let format = parts.first().map(|(_, part)| part.format);
        let format = format.ok_or_else(|| Error::format(path, "no part of a model"))?;
        let (mut files, mut entries, mut metadata) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (prefix, part) in parts {
            for (name, source) in part.entries {
                let name = format!("{prefix}{name}");
                if entries.contains_key(&name) {
                    return Err(Error::format(path, format!("tensor `{name}` is there twice")));
                }
                entries.insert(name, source.further(files.len()));
            }
            for (key, value) in part.metadata {
                metadata.entry(key).or_insert(value);
            }
            files.extend(part.files);
        }
        Ok(Self { path: path.to_path_buf(), format, metadata, files, entries })
    }
}
