//! An opened checkpoint and operations on its names.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ldm_libtorch::{MappedPages, map_file};
use tch::Tensor;

use crate::contents::FileContents;
use crate::entry::TensorInfo;
use crate::format::{Format, expected_checkpoint, is_json};
use crate::prefixes::without_wrappers;
use crate::reader::read_bytes;
use crate::shards;
use crate::source::Source;
use crate::source_file::{FileWatch, SourceFile};
use crate::{KeyMap, Shapes, StateDictMapping};
use ldm_core::{Error, Result};

/// An opened checkpoint: names, shapes and dtypes in memory, a tensor's bytes read on request.
///
/// # Examples
/// ```no_run
/// # fn main() -> ldm_core::Result<()> {
/// use ldm_checkpoint::Checkpoint;
/// # let mut vs = tch::nn::VarStore::new(tch::Device::Cpu);
/// let checkpoint = Checkpoint::open("model.ckpt")?;
/// checkpoint.scope("first_stage_model.").without(&["loss."]).load_into(&mut vs)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    pub(crate) metadata: BTreeMap<String, String>,
    /// One file, the shards of an index, or those of joined checkpoints.
    pub(crate) files: Vec<Arc<SourceFile>>,
    pub(crate) entries: BTreeMap<String, Source>,
}

impl Checkpoint {
    /// Opens a safetensors file or a file of `torch.save` (`.ckpt`, `.pt`, `.pth`, `.bin`). The format is detected
    /// from the content, never from the extension. Nothing in the file is executed, and no tensor is read yet.
    ///
    /// An index (`….index.json`) opens its shards, which lie next to it, as one checkpoint.
    ///
    /// The tensors of a torch file are those of its top-level `state_dict`, else of its `model_state_dict`, `model` or
    /// `module`, else of its `string_to_param` (a textual inversion), else its own, else of its
    /// `ema`. Names lack the modules that wrappers add: `module.` before every name
    /// (`DistributedDataParallel`), `_orig_mod.` anywhere (`torch.compile`). Quantized tensors are dequantized, sparse ones
    /// made dense.
    ///
    /// The file must not change in place while the checkpoint lives: see [`Checkpoint::watch`].
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Format`] when it is a folder, empty, truncated, damaged or
    /// of another format, when it calls a function that no state dict needs, and when a shard of an index is missing
    /// or holds other tensors than the index lists.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let refuse = |message: String| Error::format(path, message);
        let found = std::fs::metadata(path).map_err(Error::io(path))?;
        if found.is_dir() {
            return Err(refuse(expected_checkpoint("a folder")));
        }
        if found.len() == 0 {
            return Err(refuse(expected_checkpoint("an empty file")));
        }
        let bytes = map_file(path).map_err(Error::io(path))?;
        let (format, contents, files) = if is_json(&bytes) {
            shards::read(path, &bytes)?
        } else {
            let (format, contents) = read_bytes(&bytes).map_err(refuse)?;
            (format, contents, vec![SourceFile::new(path, bytes)])
        };
        let FileContents { metadata, entries } = contents;
        let entries = without_wrappers(entries);
        let entries = entries.into_iter().map(|(name, entry)| (name, entry.into())).collect();
        let files = files.into_iter().map(Arc::new).collect();
        Ok(Self { path: path.to_path_buf(), format, metadata, files, entries })
    }

    /// Returns the path it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Returns the names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Returns whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Shape and dtype of the tensor `name`.
    pub fn info(&self, name: &str) -> Option<TensorInfo> {
        self.entries.get(name).map(|entry| entry.info.clone())
    }

    /// Names and shapes of all tensors.
    pub fn shapes(&self) -> Shapes {
        self.entries.iter().map(|(name, entry)| (name.clone(), entry.info.shape.clone())).collect()
    }

    /// Returns the file's metadata: the `__metadata__` of safetensors, or the scalar top-level entries of a torch file
    /// (`epoch`, `global_step`, `pytorch-lightning_version`, …) as text.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads the tensor `name`: on the CPU, in the file's dtype, contiguous, in its own memory.
    ///
    /// # Errors
    /// [`Error::Format`] when there is no such tensor, or when its bytes are damaged.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let refuse = |message: String| Error::format(&self.path, message);
        let shown = name.escape_debug();
        let entry = self.entries.get(name).ok_or_else(|| refuse(format!("no tensor `{shown}`")))?;
        entry.read(&self.files).map_err(|why| refuse(format!("tensor `{shown}`: {why}")))
    }

    /// Keeps the names that start with `prefix`, and strips it.
    #[must_use]
    pub fn scope(self, prefix: &str) -> Self {
        self.map_names(|name| name.strip_prefix(prefix).map(str::to_owned))
    }

    /// Renames another implementation's tensors to native names. A name that would collide with another stays, so that
    /// strict loading reports it.
    #[must_use]
    pub fn rename(self, map: &KeyMap) -> Self {
        let pairs = self.entries.into_iter().map(|(name, entry)| (map.apply(&name), name, entry));
        let (same, changed): (Vec<_>, Vec<_>) = pairs.partition(|(native, name, _)| native == name);
        let mut entries: BTreeMap<String, Source> =
            same.into_iter().map(|(_, name, entry)| (name, entry)).collect();
        let mut left = Vec::new();
        for (native, name, entry) in changed {
            match entries.entry(native) {
                Slot::Occupied(_) => left.push((name, entry)),
                Slot::Vacant(free) => {
                    free.insert(entry);
                }
            }
        }
        for (mut name, entry) in left {
            while entries.contains_key(&name) {
                name.push('\'');
            }
            entries.insert(name, entry);
        }
        Self { entries, ..self }
    }

    /// Converts another implementation's tensors to native names and shapes: [`Checkpoint::rename`], then the other
    /// changes of `mapping`. Nothing is read yet. A tensor that does not match the mapping stays as it is, so that
    /// strict loading reports it.
    #[must_use]
    pub fn into_native(self, mapping: &StateDictMapping) -> Self {
        let mut native = self.rename(&mapping.keys);
        mapping.apply(&mut native.entries);
        native
    }

    /// Drops the names that start with one of `prefixes` (CompVis' `ignore_keys`).
    #[must_use]
    pub fn without(self, prefixes: &[&str]) -> Self {
        self.map_names(|name| (!starts_with_one(name, prefixes)).then(|| name.to_owned()))
    }

    /// Keeps the names that start with one of `prefixes`.
    #[must_use]
    pub fn only(self, prefixes: &[&str]) -> Self {
        self.map_names(|name| starts_with_one(name, prefixes).then(|| name.to_owned()))
    }

    /// New mappings of the files, whose pages may become tensors.
    pub(crate) fn pages(&self) -> Result<Vec<MappedPages>> {
        self.files.iter().map(|file| file.map().pages().map_err(Error::io(&self.path))).collect()
    }

    /// Returns a watch over the files, which outlives the checkpoint.
    pub fn watch(&self) -> FileWatch {
        FileWatch { files: self.files.clone() }
    }

    /// Returns the source of the tensor `name`.
    pub(crate) fn source(&self, name: &str) -> Option<&Source> {
        self.entries.get(name)
    }

    fn map_names(self, change: impl Fn(&str) -> Option<String>) -> Self {
        let entries =
            self.entries.into_iter().filter_map(|(name, entry)| Some((change(&name)?, entry))).collect();
        Self { entries, ..self }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, format, metadata, entries, .. } = self;
        let names: Vec<&String> = entries.keys().collect();
        f.debug_struct("Checkpoint")
            .field("path", path)
            .field("format", format)
            .field("metadata", metadata)
            .field("names", &names)
            .finish_non_exhaustive()
    }
}

fn starts_with_one(name: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}
