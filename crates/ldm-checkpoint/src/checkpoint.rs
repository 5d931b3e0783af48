//! A checkpoint: names, shapes, and bytes that are read when asked for.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ldm_libtorch::{Mapped, Pages, map_file};
use tch::Tensor;

use super::entry::{Entry, TensorInfo};
use super::layout::Shapes;
use super::sniff::{self, Head};
use super::source::Source;
use super::{KeyMap, StateDictMapping, safetensors, shards, torch_legacy, torch_zip};
use ldm_core::{Error, Result};

/// What kind of file a checkpoint is, told by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A length, a JSON header, and bytes.
    Safetensors,
    /// What `torch.save` has written since PyTorch 1.6: a zip of a pickle and storages.
    TorchZip,
    /// What `torch.save` wrote before: pickles, then storages.
    TorchLegacy,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::TorchZip => "torch zip",
            Self::TorchLegacy => "torch legacy pickle",
        })
    }
}

/// A file of weights: names, shapes and dtypes at hand, bytes read when asked for.
///
/// # Examples
/// ```no_run
/// # fn main() -> ldm_core::Result<()> {
/// use ldm_core::weights::Checkpoint;
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
    /// One, or those an index names, or those of several checkpoints.
    pub(crate) files: Vec<Arc<Mapped>>,
    pub(crate) entries: BTreeMap<String, Source>,
}

/// What a reader of one format found.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) entries: BTreeMap<String, Entry>,
}

/// Reads a file's names and places, by the reader its head asks for.
pub(crate) fn read_bytes(bytes: &[u8]) -> std::result::Result<(Format, Contents), String> {
    Ok(match sniff::head(bytes)? {
        Head::Safetensors => (Format::Safetensors, safetensors::read(bytes)?),
        Head::Zip => (Format::TorchZip, torch_zip::read(bytes)?),
        Head::Pickle => (Format::TorchLegacy, torch_legacy::read(bytes)?),
    })
}

impl Checkpoint {
    /// Opens a safetensors file or what `torch.save` wrote (`.ckpt`, `.pt`, `.pth`, `.bin`), told apart by
    /// content, never by the name's extension. Nothing in the file is run, and no tensor is read yet.
    ///
    /// An index (`….index.json`) opens the files it names, which lie beside it, as one.
    ///
    /// Of a torch file the tensors of its top-level `state_dict` are taken, else of its `model`, else its own.
    /// The file must not be changed in place while the checkpoint lives (see [`ldm_libtorch::map_file`]).
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Format`] when it is a folder, empty, truncated, damaged
    /// or another kind of file, and when it asks to call what a checkpoint has no need of; of an index, when a file
    /// it names is not there or holds other tensors than it says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let refuse = |message: String| Error::format(path, message);
        let found = std::fs::metadata(path).map_err(Error::io(path))?;
        if found.is_dir() {
            return Err(refuse("a folder, expected a file of weights".into()));
        }
        if found.len() == 0 {
            return Err(refuse("an empty file".into()));
        }
        let bytes = map_file(path).map_err(Error::io(path))?;
        let (format, contents, files) = if sniff::is_json(&bytes) {
            shards::read(path, &bytes)?
        } else {
            let (format, contents) = read_bytes(&bytes).map_err(refuse)?;
            (format, contents, vec![bytes])
        };
        let Contents { metadata, entries } = contents;
        let entries = entries.into_iter().map(|(name, entry)| (name, entry.into())).collect();
        let files = files.into_iter().map(Arc::new).collect();
        Ok(Self { path: path.to_path_buf(), format, metadata, files, entries })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of file it is.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is a tensor `name`.
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

    /// What the file says beside its tensors: of safetensors its `__metadata__`, of a torch file its scalar
    /// top-level entries (`epoch`, `global_step`, `pytorch-lightning_version`, …) as text.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Reads the tensor `name`: on the CPU, in the file's dtype, contiguous, with memory of its own.
    ///
    /// # Errors
    /// [`Error::Format`] when there is none of that name, or when its bytes are damaged.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let refuse = |message: String| Error::format(&self.path, message);
        let entry = self.entries.get(name).ok_or_else(|| refuse(format!("no tensor of the name: {name}")))?;
        entry.read(&self.files).map_err(|why| refuse(format!("tensor `{name}`: {why}")))
    }

    /// Keeps the names that start with `prefix` and cuts it off.
    #[must_use]
    pub fn scope(self, prefix: &str) -> Self {
        self.map_names(|name| name.strip_prefix(prefix).map(str::to_owned))
    }

    /// Gives unsupported_kind names their native ones. A name that would take another's place keeps its own, so that a
    /// strict load names it.
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

    /// Gives another implementation's tensors our names and our layout: [`Checkpoint::rename`], then what `layout`
    /// changes beside names. Nothing is read yet. What is not as the layout says keeps its shape and its parts, so
    /// that a strict load names it.
    #[must_use]
    pub fn into_native(self, layout: &StateDictMapping) -> Self {
        let mut native = self.rename(&layout.keys);
        layout.apply(&mut native.entries);
        native
    }

    /// Drops the names that start with one of `prefixes`: the reference's `ignore_keys`.
    #[must_use]
    pub fn without(self, prefixes: &[&str]) -> Self {
        self.map_names(|name| (!starts_with_one(name, prefixes)).then(|| name.to_owned()))
    }

    /// Keeps the names that start with one of `prefixes`.
    #[must_use]
    pub fn only(self, prefixes: &[&str]) -> Self {
        self.map_names(|name| starts_with_one(name, prefixes).then(|| name.to_owned()))
    }

    /// Whether the file holds CompVis' moving averages of the weights beside the weights.
    pub fn has_ema(&self) -> bool {
        self.names().any(|name| name.strip_prefix(EMA).is_some_and(|rest| !EMA_COUNTERS.contains(&rest)))
    }

    /// Puts CompVis' moving averages in the place of the weights they are of, and drops every `model_ema.` name.
    ///
    /// CompVis stores the average of `model.diffusion_model.out.2.bias` as `model_ema.diffusion_modelout2bias`
    /// (`ldm/modules/ema.py:19`), which cannot be read backwards. So `native`, the model's own names, and the
    /// names the file has below `model.` are looked up in that form; a name without an average keeps its weight.
    #[must_use]
    pub fn with_ema_weights(mut self, native: &[String]) -> Self {
        let of_file = self.entries.keys().cloned();
        let names: BTreeSet<String> = of_file.chain(native.iter().cloned()).collect();
        for name in names {
            let Some(below) = name.strip_prefix("model.") else { continue };
            if let Some(average) = self.entries.get(&format!("{EMA}{}", below.replace('.', ""))) {
                let average = average.clone();
                self.entries.insert(name, average);
            }
        }
        self.without(&[EMA])
    }

    /// The files once more, to lend their pages to tensors.
    pub(crate) fn pages(&self) -> Result<Vec<Pages>> {
        self.files.iter().map(|file| file.pages().map_err(Error::io(&self.path))).collect()
    }

    /// Where the tensor `name` comes from.
    pub(crate) fn source(&self, name: &str) -> Option<&Source> {
        self.entries.get(name)
    }

    fn map_names(self, change: impl Fn(&str) -> Option<String>) -> Self {
        let entries =
            self.entries.into_iter().filter_map(|(name, entry)| Some((change(&name)?, entry))).collect();
        Self { entries, ..self }
    }
}

const EMA: &str = "model_ema.";
const EMA_COUNTERS: [&str; 2] = ["decay", "num_updates"];

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
