//! Files of `torch.save` before PyTorch 1.6: five pickles, then the storages one after another.
//!
//! The pickles are a magic number, the protocol's number, properties of the machine, the saved object, and the keys of
//! the storages in order; each storage is its number of elements (i64) and its bytes.

use std::collections::HashMap;
use std::ops::Range;

use super::state_dict::{self, StorageName};
use crate::contents::FileContents;
use crate::entry::Storage;
use crate::file_dtype::FileDtype;
use crate::pickle::arena::{Arena, Node};
use crate::{memory, pickle};

/// 0x1950a86a20f9469cfc6c, lowest byte first.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

pub(crate) fn read(bytes: &[u8]) -> Result<FileContents, String> {
    let small = memory::small_pickle(bytes.len());
    let magic = pickle::read(bytes, 0, small)?;
    if !matches!(magic.arena.get(magic.root), Node::Bytes(digits) if *digits == MAGIC) {
        return Err("expected a file of torch.save, got another pickle".into());
    }
    let protocol = pickle::read(bytes, magic.end, small)?;
    match protocol.arena.int(protocol.root) {
        Some(PROTOCOL) => {}
        other => return Err(format!("expected protocol {PROTOCOL} of torch.save, got {other:?}")),
    }
    let machine = pickle::read(bytes, protocol.end, small)?;
    let little = machine.arena.value(machine.root, "little_endian");
    if little.is_some_and(|id| matches!(machine.arena.get(id), Node::Bool(false))) {
        return Err("expected little-endian numbers, got big-endian".into());
    }
    let saved = pickle::read(bytes, machine.end, memory::pickle(bytes.len()))?;
    let keys = pickle::read(bytes, saved.end, small)?;
    let storages = places(bytes, &saved.arena, &keys)?;
    state_dict::read(&saved.arena, saved.root, bytes.len(), |name| {
        let whole = storages
            .get(name.key)
            .ok_or_else(|| format!("no storage {} in the file", name.key.escape_debug()))?;
        let Some((offset, length)) = name.part else { return Ok(Storage::Plain(whole.clone())) };
        let bytes = |count: i64| usize::try_from(count).ok()?.checked_mul(name.dtype.width());
        let start = bytes(offset).and_then(|offset| whole.start.checked_add(offset));
        let end = start.zip(bytes(length)).and_then(|(start, length)| start.checked_add(length));
        let part = start.zip(end).filter(|(_, end)| *end <= whole.end);
        part.map(|(start, end)| Storage::Plain(start..end))
            .ok_or_else(|| "expected elements inside its storage".into())
    })
}

/// Returns the bytes of each storage. All are visited, also those of optimizers: a storage's start is only known from
/// the end of the one before.
fn places<'a>(
    bytes: &[u8],
    saved: &Arena<'a>,
    keys: &pickle::Pickle<'a>,
) -> Result<HashMap<&'a str, Range<usize>>, String> {
    let mut dtypes: HashMap<&str, FileDtype> = HashMap::new();
    for node in &saved.nodes {
        if let Node::Storage(tuple) = node {
            let name = StorageName::read(saved, *tuple)?;
            dtypes.insert(name.key, name.dtype);
        }
    }
    let list = keys.arena.items(keys.root).ok_or("damaged list of storages")?;
    let mut places = HashMap::new();
    let mut at = keys.end;
    for (index, id) in list.iter().enumerate() {
        let damaged = || format!("damaged storage {index} of {}", list.len());
        let key = keys.arena.text(*id).ok_or_else(damaged)?;
        let width = dtypes.get(key).ok_or_else(damaged)?.width();
        let cut = || {
            format!(
                "truncated: storage {index} of {} ends after the file's {} bytes",
                list.len(),
                bytes.len()
            )
        };
        let head = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        let count = usize::try_from(i64::from_le_bytes(*head)).map_err(|_| damaged())?;
        let start = at + head.len();
        let end = count.checked_mul(width).and_then(|length| start.checked_add(length));
        at = end.filter(|end| *end <= bytes.len()).ok_or_else(cut)?;
        places.insert(key, start..at);
    }
    Ok(places)
}
