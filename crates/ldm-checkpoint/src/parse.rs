//! The readers over bytes at hand, for the fuzzer: no file, no tensor.

use std::ops::Range;

use super::checkpoint::{Contents, read_bytes};
use super::entry::{Storage, TensorInfo};
use super::{memory, pickle, state_dict};

/// A tensor that a file says it has.
#[derive(Debug)]
pub struct Parsed {
    /// Its name.
    pub name: String,
    /// Its shape and dtype.
    pub info: TensorInfo,
    /// Its bytes in the file, or those that are inflated to hold them.
    pub place: Range<usize>,
    /// Whether they are deflated.
    pub deflated: bool,
}

/// Reads the names and places of a file of these bytes, as [`Checkpoint::open`](super::Checkpoint::open) does.
///
/// # Errors
/// The sentence with which the file is refused.
pub fn parse_bytes(bytes: &[u8]) -> Result<Vec<Parsed>, String> {
    read_bytes(bytes).map(|(_, contents)| parsed(contents))
}

/// Reads `bytes` as the pickle of a state dict whose storages, of any key, are these bytes themselves.
///
/// # Errors
/// As [`parse_bytes`].
pub fn parse_pickle(bytes: &[u8]) -> Result<Vec<Parsed>, String> {
    let pickle = pickle::read(bytes, 0, memory::pickle(bytes.len()))?;
    let whole = |_: &state_dict::StorageName| Ok(Storage::Plain(0..bytes.len()));
    state_dict::read(&pickle.arena, pickle.root, bytes.len(), whole).map(parsed)
}

/// The memory in bytes that reading a file of this length may take.
pub fn memory_limit(file: usize) -> usize {
    memory::whole(file)
}

fn parsed(contents: Contents) -> Vec<Parsed> {
    let entries = contents.entries.into_iter();
    entries
        .map(|(name, entry)| Parsed {
            name,
            place: entry.place(),
            deflated: entry.is_deflated(),
            info: entry.info,
        })
        .collect()
}
