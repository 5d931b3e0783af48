//! Strict reading of YAML configs, with the path, key and line in every error.

use std::path::Path;

use serde::de::DeserializeOwned;
pub use serde_yaml::Value;

use crate::{Error, Result};

/// Reads `path` into `T`, after `overrides` of the form `a.b.c=value` are applied.
///
/// `T`'s types deny unknown fields; the error then names the key, what was expected, and the line.
/// Values of overrides are YAML (`true`, `3`, `[1, 2]`, `text`), as in OmegaConf's dotlist.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Config`] when it is not YAML, when a field is
/// unknown, missing or of another type, and when the key of an override does not exist in the tree.
pub fn read<T: DeserializeOwned>(path: impl AsRef<Path>, overrides: &[String]) -> Result<T> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    parse(&text, path, overrides)
}

/// [`read`] from text; `path` is named in errors.
pub fn parse<T: DeserializeOwned>(text: &str, path: impl AsRef<Path>, overrides: &[String]) -> Result<T> {
    let path = path.as_ref();
    if overrides.is_empty() {
        // From the text itself: a parsed tree has lost its line numbers.
        return serde_yaml::from_str(text).map_err(|error| Error::config(path, error.to_string()));
    }
    // Through text again, so that an error names an override's key; lines are those of the merged file.
    let merged = to_text(&merge(text, path, overrides)?);
    serde_yaml::from_str(&merged)
        .map_err(|error| Error::config(path, format!("with overrides {}: {error}", overrides.join(" "))))
}

/// Parses YAML into an untyped tree and applies `overrides`.
///
/// # Errors
/// As [`read`], for the text and the overrides.
pub fn merge(text: &str, path: impl AsRef<Path>, overrides: &[String]) -> Result<Value> {
    let path = path.as_ref();
    let mut tree: Value =
        serde_yaml::from_str(text).map_err(|error| Error::config(path, error.to_string()))?;
    for each in overrides {
        apply(&mut tree, each, path)?;
    }
    Ok(tree)
}

/// The YAML text of a tree.
///
/// # Panics
/// Never: every parsed tree can be written.
pub fn to_text(tree: &Value) -> String {
    serde_yaml::to_string(tree).expect("every parsed tree can be written")
}

fn apply(tree: &mut Value, assignment: &str, path: &Path) -> Result<()> {
    let wrong = |why: &str| Error::config(path, format!("override `{assignment}`: {why}"));
    let (keys, value) = assignment.split_once('=').ok_or_else(|| wrong("expected key.path=value"))?;
    let value: Value = serde_yaml::from_str(value).map_err(|error| wrong(&error.to_string()))?;
    let mut at = tree;
    for key in keys.split('.') {
        if key.is_empty() {
            return Err(wrong("expected key.path=value"));
        }
        at = match at {
            Value::Sequence(items) => {
                let count = items.len();
                let index: usize =
                    key.parse().map_err(|_| wrong(&format!("expected an index, got `{key}`")))?;
                items
                    .get_mut(index)
                    .ok_or_else(|| wrong(&format!("expected an index below {count}, got {key}")))?
            }
            Value::Null => {
                *at = Value::Mapping(serde_yaml::Mapping::new());
                entry(at, key)
            }
            Value::Mapping(_) => entry(at, key),
            _ => return Err(wrong(&format!("expected a mapping or list above `{key}`, got a scalar"))),
        };
    }
    *at = value;
    Ok(())
}

fn entry<'a>(at: &'a mut Value, key: &str) -> &'a mut Value {
    at.as_mapping_mut().expect("a mapping, by the match above").entry(key.into()).or_insert(Value::Null)
}
