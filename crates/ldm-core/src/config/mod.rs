//! Strict reading of YAML configs, with the path, key and line in every error.
//!
//! Configs mean what they mean to OmegaConf, which CompVis' code reads them with: merge keys (`<<: *anchor`), references
//! (`${model.params.embed_dim}`), overrides (`a.b.c=value`) and several files, of which the later are merged into the first.

mod interpolation;
mod limits;
mod location;
mod merge;

use std::path::Path;

use serde::de::DeserializeOwned;
pub use serde_yaml::Value;

use crate::{Error, Result};
use location::{Segment, location};

/// Reads `path` into `T`, after `overrides` are applied: `a.b.c=value`, or the path of another YAML file, which is merged.
///
/// `T`'s types deny unknown fields; the error then names the key, what was expected, and the line.
/// Values of overrides are YAML (`true`, `3`, `[1, 2]`, `text`), as in OmegaConf's dotlist.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Config`] when it is not YAML or very large, when a field is
/// unknown, missing or of another type, when the key of an override does not exist in the tree, and when a reference has
/// no target.
pub fn read<T: DeserializeOwned>(path: impl AsRef<Path>, overrides: &[String]) -> Result<T> {
    let path = path.as_ref();
    limits::check_length(path)?;
    let text = crate::text::read(path)?;
    parse(&text, path, overrides)
}

/// [`read`] from text; `path` is named in errors.
pub fn parse<T: DeserializeOwned>(text: &str, path: impl AsRef<Path>, overrides: &[String]) -> Result<T> {
    let path = path.as_ref();
    limits::check_text(text, path)?;
    if overrides.is_empty() && !text.contains("<<") && !text.contains("${") {
        // From the text itself: a parsed tree has lost its line numbers.
        return serde_yaml::from_str(text).map_err(|error| Error::config(path, error.to_string()));
    }
    let tree = merge(text, path, overrides)?;
    serde_path_to_error::deserialize(tree).map_err(|error| {
        let segments: Vec<Segment> = error.path().iter().filter_map(Segment::of).collect();
        let message = error.inner().to_string();
        let unknown = message.starts_with("unknown field");
        if let Some(each) = overrides.iter().find(|each| sets(each, &joined(&segments), unknown)) {
            return Error::config(path, format!("override `{each}`: {}", at(&segments, unknown) + &message));
        }
        let place = location(text, &segments)
            .map_or(String::new(), |(line, column)| format!(" at line {line} column {column}"));
        Error::config(path, at(&segments, unknown) + &message + &place)
    })
}

fn joined(segments: &[Segment]) -> String {
    segments.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

/// The key before a message, as serde_yaml writes it: of an unknown field, which the message names, the key above it.
fn at(segments: &[Segment], unknown: bool) -> String {
    match joined(&segments[..segments.len() - usize::from(unknown && !segments.is_empty())]) {
        keys if keys.is_empty() => keys,
        keys => keys + ": ",
    }
}

/// Returns whether an override sets the value at `keys`, or a value around it; of an unknown field also one in it.
fn sets(assignment: &str, keys: &str, unknown: bool) -> bool {
    let Some((key, _)) = assignment.split_once('=') else { return false };
    let within = |inner: &str, outer: &str| {
        inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
    };
    within(keys, key) || (unknown && within(key, keys))
}

/// Parses YAML into an untyped tree, with merge keys, overrides and references resolved.
///
/// # Errors
/// As [`read`], for the text and the overrides.
pub fn merge(text: &str, path: impl AsRef<Path>, overrides: &[String]) -> Result<Value> {
    let path = path.as_ref();
    let mut tree = tree(text, path)?;
    for each in overrides {
        if is_file(each) {
            limits::check_length(each)?;
            let more = crate::text::read(each)?;
            match self::tree(&more, Path::new(each))? {
                Value::Null => {} // an empty file
                more => merge::into(&mut tree, more),
            }
        } else {
            apply(&mut tree, each, path)?;
        }
    }
    interpolation::resolve(&mut tree).map_err(|message| Error::config(path, message))?;
    Ok(tree)
}

/// A YAML text, with its merge keys resolved.
fn tree(text: &str, path: &Path) -> Result<Value> {
    limits::check_text(text, path)?;
    let mut tree: Value =
        serde_yaml::from_str(text).map_err(|error| Error::config(path, error.to_string()))?;
    merge::resolve_keys(&mut tree).map_err(|message| Error::config(path, message))?;
    Ok(tree)
}

/// Returns whether an override is the path of another config.
fn is_file(text: &str) -> bool {
    let path = Path::new(text);
    !text.contains('=') && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
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
    let (keys, value) =
        assignment.split_once('=').ok_or_else(|| wrong("expected key.path=value or a .yaml file"))?;
    let mut value: Value = serde_yaml::from_str(value).map_err(|error| wrong(&error.to_string()))?;
    merge::resolve_keys(&mut value).map_err(|message| wrong(&message))?;
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
