//! Joining checkpoints.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Checkpoint;
use ldm_core::{Error, Result};

impl Checkpoint {
    /// Joins the parts of a model that lie in separate files, each below its prefix, into one checkpoint; `path` is
    /// named in errors. The first value of a metadata key wins.
    ///
    /// # Errors
    /// [`Error::Format`] when two parts have a tensor of the same name, or when there is no part.
    pub fn join(path: impl AsRef<Path>, parts: Vec<(&str, Self)>) -> Result<Self> {
        let path = path.as_ref();
        let format = parts.first().map(|(_, part)| part.format);
        let format =
            format.ok_or_else(|| Error::format(path, "expected at least one part of a model, got none"))?;
        let (mut files, mut entries, mut metadata) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (prefix, part) in parts {
            for (name, source) in part.entries {
                let name = format!("{prefix}{name}");
                if entries.contains_key(&name) {
                    return Err(Error::format(path, format!("tensor `{name}`: expected once, got twice")));
                }
                entries.insert(name, source.offset_files(files.len()));
            }
            for (key, value) in part.metadata {
                metadata.entry(key).or_insert(value);
            }
            files.extend(part.files);
        }
        Ok(Self { path: path.to_path_buf(), format, metadata, files, entries })
    }
}
