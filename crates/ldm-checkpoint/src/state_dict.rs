//! The weights in what `torch.save` was given.

use std::collections::BTreeMap;

use tch::Kind;

use super::arena::{Arena, Id, Node};
use super::checkpoint::Contents;
use super::cursor::NAME;
use super::entry::{Entry, Storage};
use super::globals;
use super::memory::{self, Budget};

/// What an entry of a sorted map takes at most, beside its name and its axes.
const ENTRY: usize = 400;

/// How a pickle names a storage: `("storage", class, key, location, numel)`, and in old files a part of another.
pub(crate) struct StorageName<'a> {
    pub(crate) key: &'a str,
    pub(crate) kind: Kind,
    /// Offset in the storage `key` and length, in elements.
    pub(crate) part: Option<(i64, i64)>,
}

impl<'a> StorageName<'a> {
    pub(crate) fn read(arena: &Arena<'a>, tuple: Id) -> Result<Self, String> {
        let items = arena.items(tuple).unwrap_or_default();
        let first = items.first().and_then(|id| arena.text(*id));
        if first == Some("module") {
            return Err(
                "a pickled model with its code, expected a state dict: save `model.state_dict()`".into()
            );
        }
        let (Some("storage"), [_, class, key, _, _, rest @ ..]) = (first, items) else {
            return Err("its pickle is damaged: what should name a storage does not".into());
        };
        let kind = globals::storage_kind(arena.get(*class))?;
        let key = arena.text(*key).ok_or("its pickle is damaged: a storage's key is no text")?;
        let part = match rest.first().map(|id| (arena.get(*id), arena.items(*id))) {
            None | Some((Node::None, _)) => None,
            Some((_, Some([_, offset, length]))) => arena.int(*offset).zip(arena.int(*length)),
            Some(_) => return Err("its pickle is damaged: a part of a storage without its place".into()),
        };
        Ok(Self { key, kind, part })
    }
}

/// The tensors of `state_dict`, else of `model`, else of the root itself; and the root's scalars as text.
/// `locate` gives the bytes of the storage with a key; `file` is the file's length.
pub(crate) fn read(
    arena: &Arena,
    root: Id,
    file: usize,
    locate: impl Fn(&StorageName) -> Result<Storage, String>,
) -> Result<Contents, String> {
    let mut contents = Contents { metadata: scalars(arena, root, file)?, entries: BTreeMap::new() };
    let mut memory = Budget::new(memory::tensors(file), "the names and shapes of its tensors");
    for (key, value) in find(arena, root)? {
        let Node::Tensor(parts) = arena.get(*value) else { continue };
        let name = arena.text(*key).ok_or("its state dict has a tensor whose name is no text")?;
        if name.len() > NAME {
            return Err(format!("its state dict has a tensor whose name has {} bytes", name.len()));
        }
        memory.spend(ENTRY + name.len() + 2 * size_of_val(parts.shape.as_slice()))?;
        let entry = StorageName::read(arena, parts.storage).and_then(|storage| {
            let kind = parts.dtype.unwrap_or(storage.kind);
            Entry::new(locate(&storage)?, kind, parts.offset, parts.shape.clone(), parts.strides.clone())
        });
        let entry = entry.map_err(|why| format!("tensor `{}`: {why}", name.escape_debug()))?;
        contents.entries.insert(name.to_owned(), entry);
    }
    Ok(contents)
}

fn find<'b>(arena: &'b Arena, root: Id) -> Result<&'b [(Id, Id)], String> {
    let holds_tensors = |dict: &Id| {
        let pairs = arena.pairs(*dict).unwrap_or_default();
        pairs.iter().any(|(_, value)| matches!(arena.get(*value), Node::Tensor(_)))
    };
    let whole = arena.pairs(root).ok_or_else(|| match arena.get(root) {
        Node::Tensor(_) => "holds one tensor, expected a dict of names and tensors".to_owned(),
        _ => "holds no dict of names and tensors".to_owned(),
    })?;
    let below = |name| arena.value(root, name).filter(holds_tensors).and_then(|dict| arena.pairs(dict));
    if let Some(found) = below("state_dict").or_else(|| below("model")) {
        return Ok(found);
    }
    if holds_tensors(&root) {
        return Ok(whole);
    }
    let names: Vec<String> = whole
        .iter()
        .filter_map(|(key, _)| arena.text(*key))
        .filter(|name| name.len() <= NAME)
        .take(8)
        .map(|name| name.escape_debug().to_string())
        .collect();
    Err(format!("holds no state dict; its first top-level names are: {}", names.join(", ")))
}

fn scalars(arena: &Arena, root: Id, file: usize) -> Result<BTreeMap<String, String>, String> {
    let mut memory = Budget::new(memory::metadata(file), "its scalars");
    let mut scalars = BTreeMap::new();
    for (key, value) in arena.pairs(root).unwrap_or_default() {
        let Some(key) = arena.text(*key) else { continue };
        let text = match arena.get(*value) {
            Node::Bool(value) => value.to_string(),
            Node::Int(value) => value.to_string(),
            Node::Float(value) => value.to_string(),
            // One text may stand under many keys, and is copied for each.
            Node::Text(value) => {
                memory.spend(value.len())?;
                (*value).to_owned()
            }
            _ => continue,
        };
        memory.spend(ENTRY + key.len())?;
        scalars.insert(key.to_owned(), text);
    }
    Ok(scalars)
}
