//! An index: a JSON file that says which file of several a tensor lies in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ldm_libtorch::{Mapped, map_file};
use serde::Deserialize;
use serde_json::Value;

use super::checkpoint::{Contents, Format, read_bytes};
use ldm_core::{Error, Result};

/// The index of a hundred thousand tensors has a tenth of this many bytes.
const LARGEST: usize = 64 << 20;

/// More names are not listed.
const NAMES: usize = 8;

/// `model.safetensors.index.json` or `pytorch_model.bin.index.json`, as transformers and diffusers write it.
#[derive(Deserialize)]
struct Index {
    /// Files by the names of their tensors.
    weight_map: BTreeMap<String, String>,
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
}

/// Reads every file the index at `path` names, in the order of their names; they lie beside it.
pub(crate) fn read(path: &Path, index: &[u8]) -> Result<(Format, Contents, Vec<Mapped>)> {
    if index.len() > LARGEST {
        return Err(Error::format(path, format!("JSON of {} bytes, which no index has", index.len())));
    }
    let index: Index = serde_json::from_slice(index).map_err(|error| {
        Error::format(path, format!("JSON, but no index of weights in several files: {error}"))
    })?;
    let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    // An index is data from elsewhere: it may name files beside it and no others.
    if let Some(name) =
        names.iter().find(|name| Path::new(name).file_name().is_none_or(|last| last != **name))
    {
        return Err(Error::format(path, format!("its shard `{}` is no file beside it", name.escape_debug())));
    }
    let missing: Vec<&str> =
        names.iter().copied().filter(|name| !path.with_file_name(name).is_file()).collect();
    if !missing.is_empty() {
        return Err(Error::format(path, format!("shards that are not there: {}", missing.join(", "))));
    }
    let metadata = index.metadata.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let mut whole = Contents { metadata, ..Contents::default() };
    let (mut format, mut files) = (Format::Safetensors, Vec::new());
    for name in names {
        let place = path.with_file_name(name);
        let bytes = map_file(&place).map_err(Error::io(&place))?;
        let (found, contents) = read_bytes(&bytes).map_err(|why| Error::format(&place, why))?;
        let is_here = |tensor: &String| index.weight_map.get(tensor).is_some_and(|file| file == name);
        let unlisted = contents.entries.keys().filter(|tensor| !is_here(tensor));
        refuse_names(&place, "tensors its index does not say are here", unlisted)?;
        let listed = index.weight_map.iter().filter(|(_, file)| *file == name).map(|(tensor, _)| tensor);
        let lost = listed.filter(|tensor| !contents.entries.contains_key(*tensor));
        refuse_names(&place, "without tensors its index says are here", lost)?;
        let number = files.len();
        whole.entries.extend(contents.entries.into_iter().map(|(name, entry)| (name, entry.further(number))));
        for (key, value) in contents.metadata {
            whole.metadata.entry(key).or_insert(value);
        }
        format = found;
        files.push(bytes);
    }
    Ok((format, whole, files))
}

fn refuse_names<'a>(path: &Path, what: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let names: Vec<String> = names.map(|name| name.escape_debug().to_string()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let dots = if names.len() > NAMES { ", …" } else { "" };
    let first = names[..names.len().min(NAMES)].join(", ");
    Err(Error::format(path, format!("{what}, {}: {first}{dots}", names.len())))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
