//! Paths in a config.

use std::path::{Path, PathBuf};

use ldm_core::config::Value;

/// Keys whose values are files or folders.
const PATH_KEYS: [&str; 10] = [
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
];

/// Makes the values of [`PATH_KEYS`] absolute where they exist, in `beside` or in the current directory.
pub(crate) fn make_absolute(tree: &mut Value, beside: &Path) {
    match tree {
        Value::Mapping(mapping) => {
            for (key, value) in mapping.iter_mut() {
                if !key.as_str().is_some_and(|key| PATH_KEYS.contains(&key)) {
                    make_absolute(value, beside);
                } else if let Value::Sequence(paths) = value {
                    for path in paths {
                        absolute(path, beside);
                    }
                } else {
                    absolute(value, beside);
                }
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(|item| make_absolute(item, beside)),
        _ => {}
    }
}

fn absolute(value: &mut Value, beside: &Path) {
    if let Value::String(text) = value {
        // A pattern of shards (`a-{000..003}.tar`) is no file; its folder exists.
        let (text_path, pattern) =
            match (text.contains('{'), Path::new(&*text).parent(), Path::new(&*text).file_name()) {
                (true, Some(folder), Some(name)) => (folder.to_path_buf(), Some(name.to_owned())),
                _ => (PathBuf::from(&*text), None),
            };
        let found = [beside.join(&text_path), text_path].into_iter().find(|path| path.exists());
        if let Some(found) = found.and_then(|path| path.canonicalize().ok()) {
            let found = pattern.map_or(found.clone(), |name| found.join(name));
            *text = found.to_string_lossy().into_owned();
        }
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
