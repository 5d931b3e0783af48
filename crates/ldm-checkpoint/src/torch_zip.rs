//! What `torch.save` has written since PyTorch 1.6: a zip of `data.pkl` and one entry a storage.

use std::borrow::Cow;

use super::checkpoint::Contents;
use super::entry::{Storage, inflate};
use super::{memory, pickle, state_dict, zip_directory};

/// Reads names and places. Entries of a torch zip are stored as they are, and then read where they lie; one that
/// was compressed by another program is inflated when it is asked for.
pub(crate) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let entries = zip_directory::read(bytes)?;
    let pickled = entries.names().filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    // The folder around everything may have any name, and none.
    let shortest = pickled.min_by_key(|name| (name.len(), *name));
    let root = shortest.and_then(|name| name.strip_suffix("data.pkl"));
    let root = root.ok_or("a zip archive without data.pkl: not what torch.save writes")?;
    let find = |name: &str| entries.get(&format!("{root}{name}"));
    if find("constants.pkl").is_some() {
        return Err("a TorchScript archive, expected what torch.save wrote of a state dict".into());
    }
    if let Some(order) = find("byteorder") {
        let order = contents(bytes, order)?;
        if &*order != b"little" {
            let order = String::from_utf8_lossy(&order);
            return Err(format!("its numbers are {}-endian, expected little", order.escape_debug()));
        }
    }
    let data = contents(bytes, find("data.pkl").expect("found above"))?;
    let pickle = pickle::read(&data, 0, memory::pickle(bytes.len()))?;
    state_dict::read(&pickle.arena, pickle.root, bytes.len(), |storage| {
        let entry = find(&format!("data/{}", storage.key));
        let entry =
            entry.ok_or_else(|| format!("the archive has no storage {}", storage.key.escape_debug()))?;
        if storage.part.is_some() {
            return Err("a part of a storage, which a zip has no need of".into());
        }
        Ok(entry.clone())
    })
}

/// The bytes of a small entry.
fn contents<'a>(bytes: &'a [u8], entry: &Storage) -> Result<Cow<'a, [u8]>, String> {
    match entry {
        Storage::Plain(range) => Ok(Cow::Borrowed(&bytes[range.clone()])),
        Storage::Deflated(range, length) if *length <= memory::inflated(bytes.len()) => {
            Ok(Cow::Owned(inflate(&bytes[range.clone()], *length, *length)?))
        }
        Storage::Deflated(_, length) => {
            Err(format!("its pickle claims {length} bytes, which no state dict has"))
        }
    }
}
