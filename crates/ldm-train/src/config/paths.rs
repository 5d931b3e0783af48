//! Paths in a config: lookup, and removal of those that an exported model does not need.

use std::path::{Path, PathBuf};

use ldm_core::config::Value;
use ldm_data::DataPaths;

/// Keys whose values are files or folders.
const PATH_KEYS: [&str; 15] = [
    "path",
    "ckpt_path",
    "diffusion_path",
    "diffusion_ckpt_path",
    "split",
    "exclude",
    "remap",
    "annotations",
    "file",
    "classes_file",
    "class_descriptions",
    "synsets",
    "human_labels",
    "database",
    "table",
];

/// Makes the values of [`PATH_KEYS`] absolute if they exist in `folder`, that of the config file, or in the current
/// folder; those under `data` also in the folder of the datasets ([`DataPaths`]).
pub(crate) fn make_absolute(tree: &mut Value, folder: &Path) {
    let data = DataPaths::new(folder);
    let Value::Mapping(sections) = tree else { return };
    for (name, section) in sections.iter_mut() {
        if name.as_str() == Some("data") {
            absolute_in(section, &|path| data.find(path));
        } else {
            absolute_in(section, &|path| {
                [folder.join(path), PathBuf::from(path)].into_iter().find(|path| path.exists())
            });
        }
    }
}

fn absolute_in(tree: &mut Value, find: &dyn Fn(&str) -> Option<PathBuf>) {
    match tree {
        Value::Mapping(mapping) => {
            for (key, value) in mapping.iter_mut() {
                if !key.as_str().is_some_and(|key| PATH_KEYS.contains(&key)) {
                    absolute_in(value, find);
                } else if let Value::Sequence(paths) = value {
                    for path in paths {
                        absolute(path, find);
                    }
                } else {
                    absolute(value, find);
                }
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(|item| absolute_in(item, find)),
        _ => {}
    }
}

fn absolute(value: &mut Value, find: &dyn Fn(&str) -> Option<PathBuf>) {
    let Value::String(text) = value else { return };
    let Some(found) = find(text) else { return };
    // A pattern of shards (`a-{000..003}.tar`) is not a file; its folder is resolved.
    let whole = match (text.contains('{'), found.parent(), found.file_name()) {
        (true, Some(folder), Some(name)) => folder.canonicalize().map(|folder| folder.join(name)),
        _ => found.canonicalize(),
    };
    if let Ok(whole) = whole {
        *text = whole.to_string_lossy().into_owned();
    }
}

/// Removes `key` from every mapping.
pub(crate) fn drop_key(tree: &mut Value, key: &str) {
    if let Value::Mapping(mapping) = tree {
        mapping.remove(key);
        for (_, value) in mapping.iter_mut() {
            drop_key(value, key);
        }
    }
}
