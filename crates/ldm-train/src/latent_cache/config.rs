//! `train.cache_latents`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Caching of latents: images are encoded once, before the first step, into a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CacheLatents {
    /// `false`: images are encoded in every step.
    #[default]
    No,
    /// `true`: a file in the run directory.
    InRun,
    /// A file that several runs can share.
    At(PathBuf),
}

impl CacheLatents {
    /// The file, for a run in `root`.
    pub fn path(&self, root: &Path) -> Option<PathBuf> {
        match self {
            Self::No => None,
            Self::InRun => Some(root.join("latents.safetensors")),
            Self::At(path) => Some(path.clone()),
        }
    }

    /// Resolves a relative path against the current directory, so that it stays the same when the run is resumed from
    /// another one.
    pub(crate) fn make_absolute(&mut self) {
        if let Self::At(path) = self
            && let Ok(absolute) = std::path::absolute(&*path)
        {
            *path = absolute;
        }
    }
}

impl<'de> Deserialize<'de> for CacheLatents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SwitchOrFile)
    }
}

impl Serialize for CacheLatents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => serializer.serialize_bool(false),
            Self::InRun => serializer.serialize_bool(true),
            Self::At(path) => path.serialize(serializer),
        }
    }
}

struct SwitchOrFile;

impl Visitor<'_> for SwitchOrFile {
    type Value = CacheLatents;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, or the path of a file")
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<Self::Value, E> {
        Ok(if on { CacheLatents::InRun } else { CacheLatents::No })
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<Self::Value, E> {
        if path.is_empty() {
            return Err(E::invalid_value(de::Unexpected::Str(path), &self));
        }
        Ok(CacheLatents::At(path.into()))
    }
}
