//! Files of `torch.save` since PyTorch 1.6: a zip archive of `data.pkl` and one entry per storage.

use std::borrow::Cow;

use super::{state_dict, zip_directory};
use crate::contents::FileContents;
use crate::entry::{Deflated, Storage, inflate};
use crate::{memory, pickle};

/// Reads names and places. `torch.save` stores entries uncompressed, and they are read in place; one that another
/// program compressed is inflated on request.
pub(crate) fn read(bytes: &[u8]) -> Result<FileContents, String> {
    let entries = zip_directory::read(bytes)?;
    let pickled = entries.names().filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    // The top-level folder may have any name, or none.
    let shortest = pickled.min_by_key(|name| (name.len(), *name));
    let root = shortest.and_then(|name| name.strip_suffix("data.pkl"));
    let root = root.ok_or("expected a zip archive of torch.save, got one without data.pkl")?;
    let find = |name: &str| entries.get(&format!("{root}{name}"));
    if find("constants.pkl").is_some() {
        return Err("expected a state dict of torch.save, got a TorchScript archive".into());
    }
    if let Some(order) = find("byteorder") {
        let order = contents(bytes, order)?;
        if &*order != b"little" {
            let order = String::from_utf8_lossy(&order);
            return Err(format!("expected little-endian numbers, got {}-endian", order.escape_debug()));
        }
    }
    let data = contents(bytes, find("data.pkl").expect("found above"))?;
    let pickle = pickle::read(&data, 0, memory::pickle(bytes.len()))?;
    state_dict::read(&pickle.arena, pickle.root, bytes.len(), |storage| {
        let entry = find(&format!("data/{}", storage.key));
        let entry =
            entry.ok_or_else(|| format!("no storage {} in the archive", storage.key.escape_debug()))?;
        if storage.part.is_some() {
            return Err("part of a storage, expected a whole one".into());
        }
        Ok(entry.clone())
    })
}

/// Returns the bytes of a small entry.
fn contents<'a>(bytes: &'a [u8], entry: &Storage) -> Result<Cow<'a, [u8]>, String> {
    match entry {
        Storage::Plain(range) => Ok(Cow::Borrowed(&bytes[range.clone()])),
        Storage::Deflated(Deflated { place, length, .. }) if *length <= memory::inflated(bytes.len()) => {
            Ok(Cow::Owned(inflate(&bytes[place.clone()], *length, *length)?))
        }
        Storage::Deflated(Deflated { length, .. }) => {
            Err(format!("its pickle claims {length} bytes, more than any state dict has"))
        }
    }
}
