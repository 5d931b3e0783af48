//! Sharded checkpoints: a JSON index maps each tensor to one of several files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ldm_libtorch::map_file;
use serde::Deserialize;
use serde_json::Value;

use crate::contents::FileContents;
use crate::format::Format;
use crate::reader::read_bytes;
use crate::source_file::SourceFile;
use ldm_core::{Error, Result};

/// Limit of an index; one of a hundred thousand tensors has a tenth of this.
const LARGEST: usize = 64 << 20;

/// The most names that an error lists.
const NAMES: usize = 8;

/// `model.safetensors.index.json` or `pytorch_model.bin.index.json`, as transformers and diffusers write it.
#[derive(Deserialize)]
struct ShardIndex {
    /// File names by tensor name.
    weight_map: BTreeMap<String, String>,
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
}

/// Reads every shard of the index at `path`, in the order of their names; they lie next to it.
pub(crate) fn read(path: &Path, index: &[u8]) -> Result<(Format, FileContents, Vec<SourceFile>)> {
    if index.len() > LARGEST {
        return Err(Error::format(
            path,
            format!("expected an index of at most {LARGEST} bytes, got {}", index.len()),
        ));
    }
    let index = ldm_core::text::decode(index).map_err(|message| Error::format(path, message))?;
    let index: ShardIndex = serde_json::from_str(&index).map_err(|error| {
        Error::format(path, format!("expected an index of shards, got other JSON: {error}"))
    })?;
    let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    // An index is untrusted: it may name files next to it and no others.
    if let Some(name) =
        names.iter().find(|name| Path::new(name).file_name().is_none_or(|last| last != **name))
    {
        return Err(Error::format(
            path,
            format!("shard `{}`: expected a file next to the index", name.escape_debug()),
        ));
    }
    let missing: Vec<&str> =
        names.iter().copied().filter(|name| !path.with_file_name(name).is_file()).collect();
    if !missing.is_empty() {
        return Err(Error::format(path, format!("missing shards: {}", missing.join(", "))));
    }
    let metadata = index.metadata.iter().map(|(key, value)| (key.clone(), text(value))).collect();
    let mut whole = FileContents { metadata, ..FileContents::default() };
    let (mut format, mut files) = (Format::Safetensors, Vec::new());
    for name in names {
        let place = path.with_file_name(name);
        let bytes = map_file(&place).map_err(Error::io(&place))?;
        let (found, contents) = read_bytes(&bytes).map_err(|why| Error::format(&place, why))?;
        let is_here = |tensor: &String| index.weight_map.get(tensor).is_some_and(|file| file == name);
        let unlisted = contents.entries.keys().filter(|tensor| !is_here(tensor));
        refuse_names(&place, "not listed in the index", unlisted)?;
        let listed = index.weight_map.iter().filter(|(_, file)| *file == name).map(|(tensor, _)| tensor);
        let lost = listed.filter(|tensor| !contents.entries.contains_key(*tensor));
        refuse_names(&place, "listed in the index but missing", lost)?;
        let number = files.len();
        whole
            .entries
            .extend(contents.entries.into_iter().map(|(name, entry)| (name, entry.offset_files(number))));
        for (key, value) in contents.metadata {
            whole.metadata.entry(key).or_insert(value);
        }
        format = found;
        files.push(SourceFile::new(&place, bytes));
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
    Err(Error::format(path, format!("{} tensors {what}: {first}{dots}", names.len())))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
