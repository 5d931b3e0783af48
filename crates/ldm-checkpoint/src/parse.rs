//! The readers on bytes in memory, for fuzzing: no file, no tensor.

use std::ops::Range;

use crate::contents::FileContents;
use crate::entry::{Storage, TensorInfo};
use crate::reader::read_bytes;
use crate::torch::state_dict;
use crate::{memory, npz, pickle};

/// A tensor listed by a file.
#[derive(Debug)]
pub struct Parsed {
    /// Its name.
    pub name: String,
    /// Its shape and dtype.
    pub info: TensorInfo,
    /// Its bytes in the file, deflated or not.
    pub place: Range<usize>,
    /// The bytes are deflated, or the tensor is computed from several in the file.
    pub converted: bool,
}

/// Reads the names and places of a file of these bytes, as [`Checkpoint::open`](crate::Checkpoint::open) does.
///
/// # Errors
/// The text of the error.
pub fn parse_bytes(bytes: &[u8]) -> Result<Vec<Parsed>, String> {
    read_bytes(bytes).map(|(_, contents)| parsed(contents))
}

/// Reads `bytes` as the pickle of a state dict whose storages, of any key, are these same bytes.
///
/// # Errors
/// As [`parse_bytes`].
pub fn parse_pickle(bytes: &[u8]) -> Result<Vec<Parsed>, String> {
    let pickle = pickle::read(bytes, 0, memory::pickle(bytes.len()))?;
    let whole = |_: &state_dict::StorageName| Ok(Storage::Plain(0..bytes.len()));
    state_dict::read(&pickle.arena, pickle.root, bytes.len(), whole).map(parsed)
}

/// Reads the names and places of the arrays of an `.npz` of these bytes, as [`Npz`](crate::Npz) does.
///
/// # Errors
/// As [`parse_bytes`].
pub fn parse_npz(bytes: &[u8]) -> Result<Vec<Parsed>, String> {
    let places = npz::places(bytes)?.into_iter();
    places
        .map(|(name, storage)| {
            let header = npz::head(bytes, &storage)?;
            npz::check(&storage, &header)?;
            let (place, converted) = match storage {
                Storage::Plain(place) => (place, false),
                Storage::Deflated(deflated) => (deflated.place, true),
            };
            Ok(Parsed { name, info: header.info(), place, converted })
        })
        .collect()
}

/// Returns the most memory, in bytes, that reading a file of this length may take.
pub fn memory_limit(file: usize) -> usize {
    memory::total(file)
}

fn parsed(contents: FileContents) -> Vec<Parsed> {
    let entries = contents.entries.into_iter();
    entries
        .map(|(name, entry)| Parsed {
            name,
            place: entry.place().1,
            converted: entry.is_converted(),
            info: entry.info,
        })
        .collect()
}
