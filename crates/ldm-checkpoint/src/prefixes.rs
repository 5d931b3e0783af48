//! Module wrappers in tensor names.

use std::collections::BTreeMap;

/// The module that `torch.compile` adds.
const COMPILED: &str = "_orig_mod";
/// The module that `DataParallel`, `DistributedDataParallel` and DeepSpeed add.
const PARALLEL: &str = "module.";

/// Removes the modules that wrappers add: `_orig_mod` anywhere, and `module` at the beginning of every name. Names that
/// would collide stay as they are.
pub(crate) fn without_wrappers<T>(mut entries: BTreeMap<String, T>) -> BTreeMap<String, T> {
    if entries.keys().any(|name| name.split('.').any(|part| part == COMPILED)) {
        entries = renamed(entries, |name| {
            name.split('.').filter(|part| *part != COMPILED).collect::<Vec<_>>().join(".")
        });
    }
    while !entries.is_empty() && entries.keys().all(|name| name.starts_with(PARALLEL)) {
        let cut = |(name, entry): (String, T)| (name[PARALLEL.len()..].to_owned(), entry);
        entries = entries.into_iter().map(cut).collect();
    }
    entries
}

/// Renames all entries, unless two would have one name.
fn renamed<T>(entries: BTreeMap<String, T>, change: impl Fn(&str) -> String) -> BTreeMap<String, T> {
    let mut names: Vec<String> = entries.keys().map(|name| change(name)).collect();
    names.sort_unstable();
    names.dedup();
    if names.len() < entries.len() {
        return entries;
    }
    entries.into_iter().map(|(name, entry)| (change(&name), entry)).collect()
}
