//! The central directory of a zip archive, read in place.
//!
//! Supports what torch's archives use: one disk, no encryption, entries stored or deflated, with or without 64-bit
//! records. Memory is never reserved by a count from the file. APPNOTE 6.3.10, §4.3.

use std::ops::Range;

use crate::entry::{Deflated, Storage};

const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";

/// Lengths of the fixed parts of records.
const END_LENGTH: usize = 22;
const LOCATOR_LENGTH: usize = 20;
const ENTRY_LENGTH: usize = 46;
const LOCAL_LENGTH: usize = 30;

/// The value of a 32-bit field whose actual value is in a 64-bit record.
const ELSEWHERE: u64 = 0xffff_ffff;

/// The entries, sorted by name; the first of two with the same name counts.
pub(crate) struct Directory<'a>(Vec<(&'a str, Storage)>);

impl<'a> Directory<'a> {
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|(name, _)| *name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &Storage)> {
        self.0.iter().map(|(name, storage)| (*name, storage))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Storage> {
        self.0.binary_search_by_key(&name, |(each, _)| each).ok().map(|index| &self.0[index].1)
    }
}

/// Reads the central directory.
pub(crate) fn read(bytes: &[u8]) -> Result<Directory<'_>, String> {
    let directory = find(bytes).ok_or("truncated or damaged zip archive: no central directory at its end")?;
    let mut rest = &bytes[directory];
    // By the bytes present, not by a count from the file: about as much memory as the directory itself.
    let mut entries = Vec::with_capacity(rest.len() / ENTRY_LENGTH);
    while !rest.is_empty() {
        let (name, storage, length) = entry(bytes, rest)?;
        entries.push((name, storage));
        rest = &rest[length..];
    }
    entries.sort_by_key(|(name, _)| *name);
    entries.dedup_by_key(|(name, _)| *name);
    Ok(Directory(entries))
}

/// Returns the bytes of the central directory.
fn find(bytes: &[u8]) -> Option<Range<usize>> {
    // A comment of up to 65535 bytes may follow the end record, whose last field is its length.
    let last = bytes.len().checked_sub(END_LENGTH)?;
    let fits =
        |at: &usize| bytes[*at..].starts_with(END) && number(bytes, at + 20, 2) == Some((last - at) as u64);
    let end = (last.saturating_sub(0xffff)..=last).rev().find(fits)?;
    let (mut length, mut start) = (number(bytes, end + 12, 4)?, number(bytes, end + 16, 4)?);
    if length == ELSEWHERE || start == ELSEWHERE {
        let locator = end.checked_sub(LOCATOR_LENGTH).filter(|at| bytes[*at..].starts_with(LOCATOR_64))?;
        let record = usize::try_from(number(bytes, locator + 8, 8)?).ok()?;
        bytes.get(record..).filter(|rest| rest.starts_with(END_64))?;
        (length, start) =
            (number(bytes, record.checked_add(40)?, 8)?, number(bytes, record.checked_add(48)?, 8)?);
    }
    range(start, length, end)
}

/// Returns the entry at the start of `rest`: its name, its bytes, and the length of its record.
fn entry<'a>(bytes: &'a [u8], rest: &'a [u8]) -> Result<(&'a str, Storage, usize), String> {
    let damaged = || "damaged zip archive: invalid directory entry".to_owned();
    let field = |at, width| number(rest, at, width).ok_or_else(damaged);
    let [name_length, extra_length, comment_length] =
        [field(28, 2)? as usize, field(30, 2)? as usize, field(32, 2)? as usize];
    let extra = ENTRY_LENGTH + name_length;
    let length = extra + extra_length + comment_length;
    if !rest.starts_with(ENTRY) || length > rest.len() {
        return Err(damaged());
    }
    let name = std::str::from_utf8(&rest[ENTRY_LENGTH..extra]).map_err(|_| damaged())?;
    let refuse = |why: &str| format!("zip entry `{}`: {why}", name.escape_debug());
    let (flags, method) = (field(8, 2)?, field(10, 2)?);
    // The 64-bit record holds, in this order, the values that do not fit.
    let mut sizes = [field(24, 4)?, field(20, 4)?, field(42, 4)?];
    let mut wide = zip64(&rest[extra..extra + extra_length]).unwrap_or_default();
    for size in sizes.iter_mut().filter(|size| **size == ELSEWHERE) {
        *size = number(wide, 0, 8).ok_or_else(damaged)?;
        wide = &wide[8..];
    }
    let [size, packed, header] = sizes;
    if flags & 1 != 0 {
        return Err(refuse("encrypted"));
    }
    let outside = || refuse("outside the file, which is truncated or damaged");
    let local = usize::try_from(header).ok().and_then(|at| bytes.get(at..)).ok_or_else(outside)?;
    // The local header has its own lengths of name and extra field: torch pads there for alignment.
    let skip = number(local, 26, 2).zip(number(local, 28, 2)).filter(|_| local.starts_with(LOCAL));
    let skip = skip.map(|(name, extra)| LOCAL_LENGTH as u64 + name + extra).ok_or_else(outside)?;
    let place =
        header.checked_add(skip).and_then(|start| range(start, packed, bytes.len())).ok_or_else(outside)?;
    let size = usize::try_from(size).map_err(|_| outside())?;
    match method {
        0 if size == place.len() => Ok((name, Storage::Plain(place), length)),
        8 => Ok((name, Storage::Deflated(Deflated { place, length: size, shared: false }), length)),
        _ => Err(refuse("unsupported compression method")),
    }
}

/// Returns the block of 64-bit values in an extra field.
fn zip64(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let length = number(extra, 2, 2)? as usize;
        let block = extra.get(4..4 + length)?;
        if extra.starts_with(&[1, 0]) {
            return Some(block);
        }
        extra = &extra[4 + length..];
    }
}

/// `start..start + length`, if it ends by `limit`.
fn range(start: u64, length: u64, limit: usize) -> Option<Range<usize>> {
    let end = usize::try_from(start.checked_add(length)?).ok().filter(|end| *end <= limit)?;
    Some(start as usize..end)
}

/// Returns a little-endian number.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(bytes.get(at..at.checked_add(width)?)?);
    Some(u64::from_le_bytes(wide))
}
