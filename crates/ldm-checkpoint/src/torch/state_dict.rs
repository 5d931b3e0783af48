//! The state dict in an unpickled object.

use std::collections::BTreeMap;

use tch::Kind;

use crate::contents::FileContents;
use crate::entry::{Storage, TensorEntry};
use crate::memory::{self, MemoryBudget};
use crate::pickle::arena::{Arena, Id, Node};
use crate::pickle::cursor::NAME;
use crate::pickle::globals;

/// The most memory of a map entry, without its name and axes.
const ENTRY: usize = 400;

/// The name of a storage in a pickle: `("storage", class, key, location, numel)`, and in legacy files a part of another.
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
                "expected a state dict, got a pickled model with its code; try saving `model.state_dict()`"
                    .into(),
            );
        }
        let (Some("storage"), [_, class, key, _, _, rest @ ..]) = (first, items) else {
            return Err("damaged pickle: expected the name of a storage".into());
        };
        let kind = globals::storage_kind(arena.get(*class))?;
        let key = arena.text(*key).ok_or("damaged pickle: expected text as a storage's key")?;
        let part = match rest.first().map(|id| (arena.get(*id), arena.items(*id))) {
            None | Some((Node::None, _)) => None,
            Some((_, Some([_, offset, length]))) => arena.int(*offset).zip(arena.int(*length)),
            Some(_) => {
                return Err("damaged pickle: expected the offset and length of part of a storage".into());
            }
        };
        Ok(Self { key, kind, part })
    }
}

/// Reads the tensors of `state_dict`, else of `model`, else of the root itself, and the root's scalars as text.
/// `locate` returns the bytes of a storage; `file` is the file's length.
pub(crate) fn read(
    arena: &Arena,
    root: Id,
    file: usize,
    locate: impl Fn(&StorageName) -> Result<Storage, String>,
) -> Result<FileContents, String> {
    let mut contents = FileContents { metadata: scalars(arena, root, file)?, entries: BTreeMap::new() };
    let mut memory = MemoryBudget::new(memory::tensors(file), "the names and shapes of its tensors");
    for (key, value) in find(arena, root)? {
        let Node::Tensor(parts) = arena.get(*value) else { continue };
        let name = arena.text(*key).ok_or("state dict: expected text as a tensor's name")?;
        if name.len() > NAME {
            return Err(format!(
                "state dict: expected a tensor's name of at most {NAME} bytes, got {}",
                name.len()
            ));
        }
        memory.spend(ENTRY + name.len() + 2 * size_of_val(parts.shape.as_slice()))?;
        let entry = StorageName::read(arena, parts.storage).and_then(|storage| {
            let kind = parts.dtype.unwrap_or(storage.kind);
            TensorEntry::new(
                locate(&storage)?,
                kind,
                parts.offset,
                parts.shape.clone(),
                parts.strides.clone(),
            )
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
        Node::Tensor(_) => "expected a dict of names and tensors, got one tensor".to_owned(),
        _ => "expected a dict of names and tensors, got another object".to_owned(),
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
    Err(format!("expected a state dict, got a dict of: {}", names.join(", ")))
}

fn scalars(arena: &Arena, root: Id, file: usize) -> Result<BTreeMap<String, String>, String> {
    let mut memory = MemoryBudget::new(memory::metadata(file), "its scalars");
    let mut scalars = BTreeMap::new();
    for (key, value) in arena.pairs(root).unwrap_or_default() {
        let Some(key) = arena.text(*key) else { continue };
        let text = match arena.get(*value) {
            Node::Bool(value) => value.to_string(),
            Node::Int(value) => value.to_string(),
            Node::Float(value) => value.to_string(),
            // One text may appear under many keys, and is copied for each.
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
