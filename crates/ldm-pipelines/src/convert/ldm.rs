//! Model folders.

use std::path::Path;

use ldm_checkpoint::{Streamed, save_streamed};
use ldm_core::config::{Value, to_text};
use ldm_core::{Error, Result, files};

use super::weights::Weights;
use super::{ConvertOptions, remap, tree, whole};
use crate::tokenizer::{copy_tokenizer, tokenizer_path};
use crate::{ModelConfig, ModelSource};

pub(super) fn write(
    source: &ModelSource,
    weights: &Weights,
    out: &Path,
    options: &ConvertOptions,
    note: &mut dyn FnMut(&str),
) -> Result<()> {
    let mut config = whole(source);
    let mut codes = None;
    if let Some(path) = remap(&mut config) {
        // A config of others may name any list of integers on this machine.
        if !is_in_folder(path, source.folder.as_deref()) {
            note(&format!("remap: copied from {}", path.display()));
        }
        codes = Some(std::fs::read(&path).map_err(Error::io(&path))?);
        *path = "remap.npy".into();
    }
    let kind = match &config {
        ModelConfig::LatentDiffusion(model) => model.cond_stage_config.tokenizer_kind(),
        _ => None,
    };
    let tokenizer =
        kind.and_then(|kind| tokenizer_path(kind, options.tokenizer.as_deref(), source.folder.as_deref()));
    if let (Some(kind), None) = (kind, &tokenizer) {
        note(&format!(
            "tokenizer: expected one to export, got none; try `ldm weights get {}`",
            kind.download()
        ));
    }
    files::write_folder(out, options.force, |folder| {
        let text = to_text(&Value::Mapping(tree(&config)));
        files::write_bytes(folder.join("config.yaml"), text.as_bytes())?;
        if let Some(codes) = &codes {
            files::write_bytes(folder.join("remap.npy"), codes)?;
        }
        if let Some(tokenizer) = &tokenizer {
            copy_tokenizer(tokenizer, &folder.join("tokenizer"))?;
        }
        let mut tensors = weights.native();
        tensors.extend(Streamed::each(&weights.buffers));
        save_streamed(folder.join("model.safetensors"), &tensors, &weights.metadata())
    })
}

fn is_in_folder(path: &Path, folder: Option<&Path>) -> bool {
    let folder = folder.and_then(|folder| folder.canonicalize().ok());
    let path = path.canonicalize().ok();
    path.zip(folder).is_some_and(|(path, folder)| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_through_the_folder_to_another_is_not_in_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        for file in ["model/remap.npy", "remap.npy"] {
            std::fs::write(root.path().join(file), b"").unwrap();
        }
        assert!(is_in_folder(&folder.join("remap.npy"), Some(&folder)));
        assert!(!is_in_folder(&folder.join("../remap.npy"), Some(&folder)));
        assert!(!is_in_folder(&folder.join("remap.npy"), None));
    }
}
