//! The state dict in an unpickled object.

use std::collections::{BTreeMap, HashMap};

use crate::contents::FileContents;
use crate::conversion::Conversion;
use crate::entry::{Storage, TensorEntry};
use crate::file_dtype::FileDtype;
use crate::memory::{self, MemoryBudget};
use crate::pickle::arena::{Arena, Id, Node, SparseLayout, TensorChangeParts, TensorParts};
use crate::pickle::cursor::NAME;
use crate::pickle::globals;

/// The most memory of a map entry, without its name and axes.
const ENTRY: usize = 480;
/// The most memory of a tensor that another is computed from, likewise.
const PART: usize = 320;

/// The keys below which programs save a state dict, by preference: Lightning, many trainers, DeepSpeed, and A1111's
/// embeddings.
const WRAPPERS: [&str; 5] = ["state_dict", "model_state_dict", "model", "module", "string_to_param"];
/// The same for EMA weights, which count where there are no others.
const EMA_WRAPPERS: [&str; 2] = ["ema", "ema_state_dict"];
/// The most wrappers in each other.
const DEPTH: usize = 3;

/// The name of a storage in a pickle: `("storage", class, key, location, numel)`, and in legacy files a part of another.
pub(crate) struct StorageName<'a> {
    pub(crate) key: &'a str,
    pub(crate) dtype: FileDtype,
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
        let dtype = globals::storage_dtype(arena.get(*class))?;
        let key = arena.text(*key).ok_or("damaged pickle: expected text as a storage's key")?;
        let part = match rest.first().map(|id| (arena.get(*id), arena.items(*id))) {
            None | Some((Node::None, _)) => None,
            Some((_, Some([_, offset, length]))) => arena.int(*offset).zip(arena.int(*length)),
            Some(_) => {
                return Err("damaged pickle: expected the offset and length of part of a storage".into());
            }
        };
        Ok(Self { key, dtype, part })
    }
}

/// Reads the tensors of the state dict that [`find`] finds, and the root's scalars as text. `locate` returns the bytes of
/// a storage; `file` is the file's length.
pub(crate) fn read(
    arena: &Arena,
    root: Id,
    file: usize,
    locate: impl Fn(&StorageName) -> Result<Storage, String>,
) -> Result<FileContents, String> {
    let mut contents = FileContents { metadata: scalars(arena, root, file)?, entries: BTreeMap::new() };
    let memory = MemoryBudget::new(memory::tensors(file), "the names and shapes of its tensors");
    let mut reader = TensorReader { arena, memory, locate };
    for (key, value) in find(arena, root)? {
        if !arena.is_tensor(*value) {
            continue;
        }
        let name = arena.text(*key).ok_or("state dict: expected text as a tensor's name")?;
        if name.len() > NAME {
            return Err(format!(
                "state dict: expected a tensor's name of at most {NAME} bytes, got {}",
                name.len()
            ));
        }
        reader.memory.spend(ENTRY + name.len())?;
        let entry = reader.any(*value).map_err(|why| format!("tensor `{}`: {why}", name.escape_debug()))?;
        contents.entries.insert(name.to_owned(), entry);
    }
    bound_inflation(&mut contents.entries)?;
    Ok(contents)
}

/// Creates entries from pickled tensors.
struct TensorReader<'b, 'a, L> {
    arena: &'b Arena<'a>,
    memory: MemoryBudget,
    locate: L,
}

impl<L: Fn(&StorageName) -> Result<Storage, String>> TensorReader<'_, '_, L> {
    /// Reads a tensor of any kind.
    fn any(&mut self, id: Id) -> Result<TensorEntry, String> {
        match self.arena.get(id) {
            Node::Tensor(parts) => self.changed(parts),
            Node::Sparse(parts) => {
                let conversion = match parts.layout {
                    SparseLayout::Coo { indices, values } => {
                        Conversion::Coo { indices: self.part(indices)?, values: self.part(values)? }
                    }
                    SparseLayout::Compressed { bounds, across, values, by_rows } => {
                        let [bounds, across] = [self.part(bounds)?, self.part(across)?];
                        Conversion::Compressed { bounds, across, values: self.part(values)?, by_rows }
                    }
                };
                self.memory.spend(size_of_val(parts.shape.as_slice()))?;
                conversion.into_entry(parts.shape.clone())
            }
            Node::OtherTensor(kind) => Err(format!("expected a dense or sparse tensor, got {kind}")),
            _ => Err("expected a tensor, got one without values".into()),
        }
    }

    /// Reads a dense tensor whose values may be changed.
    fn changed(&mut self, parts: &TensorParts) -> Result<TensorEntry, String> {
        if parts.change == TensorChangeParts::None {
            return self.dense(parts);
        }
        self.memory.spend(PART)?;
        let values = self.dense(parts)?;
        let conversion = match parts.change {
            TensorChangeParts::None => return Ok(values),
            TensorChangeParts::Signed { conjugate, negative } => {
                Conversion::Signed { values, conjugate, negative }
            }
            TensorChangeParts::Quantized { scale, zero_point } => {
                Conversion::Quantized { values, scale, zero_point }
            }
            TensorChangeParts::QuantizedByChannel { scales, zero_points, axis } => {
                let [scales, zero_points] = [self.part(scales)?, self.part(zero_points)?];
                Conversion::QuantizedByChannel { values, scales, zero_points, axis }
            }
        };
        conversion.into_entry(parts.shape.clone())
    }

    /// Reads a tensor that another is computed from.
    fn part(&mut self, id: Id) -> Result<TensorEntry, String> {
        self.memory.spend(PART)?;
        match self.arena.get(id) {
            Node::Tensor(parts) => self.dense(parts),
            _ => Err("damaged quantized or sparse tensor".into()),
        }
    }

    fn dense(&mut self, parts: &TensorParts) -> Result<TensorEntry, String> {
        self.memory.spend(3 * size_of_val(parts.shape.as_slice()))?;
        let storage = StorageName::read(self.arena, parts.storage)?;
        let dtype = parts.dtype.unwrap_or(storage.dtype);
        let (shape, strides) = (parts.shape.clone(), parts.strides.clone());
        TensorEntry::new((self.locate)(&storage)?, dtype, parts.offset, shape, strides)
    }
}

/// Cuts each deflated storage behind the last byte that a tensor uses, and refuses storages that would take much more
/// memory than the file.
fn bound_inflation(entries: &mut BTreeMap<String, TensorEntry>) -> Result<(), String> {
    /// The use of a storage: its packed bytes, the last byte used, the number of tensors.
    type Use = (usize, usize, usize);
    let mut uses: HashMap<usize, Use> = HashMap::new();
    for entry in entries.values_mut() {
        entry.each_window(&mut |window| {
            if let Storage::Deflated(storage) = &window.storage {
                let found = uses.entry(storage.place.start).or_insert((storage.place.len(), 0, 0));
                *found = (found.0, found.1.max(window.range.end), found.2 + 1);
            }
        });
    }
    let (packed, inflated) = uses.values().fold((0_usize, 0_usize), |(packed, inflated), (from, to, _)| {
        (packed.saturating_add(*from), inflated.saturating_add(*to))
    });
    let most = memory::inflated_tensors(packed);
    if inflated > most {
        return Err(format!(
            "expected compressed tensors of at most {most} bytes, by their {packed} bytes in the file, got \
             {inflated}; try saving them uncompressed"
        ));
    }
    for entry in entries.values_mut() {
        entry.each_window(&mut |window| {
            if let Storage::Deflated(storage) = &mut window.storage
                && let Some((_, end, tensors)) = uses.get(&storage.place.start)
            {
                (storage.length, storage.shared) = (*end, *tensors > 1);
            }
        });
    }
    Ok(())
}

/// Returns the state dict in an object: below `state_dict` or another of [`WRAPPERS`], the object itself, or below one of
/// [`EMA_WRAPPERS`].
fn find<'b>(arena: &'b Arena, root: Id) -> Result<&'b [(Id, Id)], String> {
    let whole = arena.pairs(root).ok_or_else(|| {
        if arena.is_tensor(root) {
            "expected a dict of names and tensors, got one tensor".to_owned()
        } else {
            "expected a dict of names and tensors, got another object".to_owned()
        }
    })?;
    if let Some(found) = state_dict_in(arena, root, DEPTH) {
        return Ok(found);
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

fn state_dict_in<'b>(arena: &'b Arena, dict: Id, depth: usize) -> Option<&'b [(Id, Id)]> {
    let pairs = arena.pairs(dict)?;
    let below = |names: &[&str]| {
        let depth = depth.checked_sub(1)?;
        names.iter().find_map(|name| state_dict_in(arena, arena.value(dict, name)?, depth))
    };
    let own = || pairs.iter().any(|(_, value)| arena.is_tensor(*value)).then_some(pairs);
    below(&WRAPPERS).or_else(own).or_else(|| below(&EMA_WRAPPERS))
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
