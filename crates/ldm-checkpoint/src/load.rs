//! Strict loading: everything matches, or nothing changes.

use std::collections::BTreeSet;

use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::Checkpoint;
use crate::file_dtype::is_complex;
use crate::source::Source;
use ldm_core::{Error, Mismatch, Result};

/// The way tensors are loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LoadMode {
    /// The tensor keeps its memory and takes the values.
    Copy,
    /// The tensor's memory becomes the file's own pages, where they fit.
    Map,
}

impl Checkpoint {
    /// Loads every variable of `vs`.
    ///
    /// Every variable must be in the file with its shape (nothing is broadcast), and every tensor of the file must be
    /// used. A variable keeps its dtype, device and memory format. On a mismatch nothing changes.
    ///
    /// # Errors
    /// [`Error::Weights`] listing all missing, unexpected and misshaped names at once; [`Error::Format`] when the
    /// bytes of a compressed tensor are damaged, which shows only while loading.
    pub fn load_into(&self, vs: &mut VarStore) -> Result<()> {
        self.load_scope(vs, "")
    }

    /// [`Checkpoint::load_into`] for the variables whose names start with `prefix`; the file's names lack it.
    ///
    /// # Errors
    /// As [`Checkpoint::load_into`]; the names listed are those of `vs`.
    pub fn load_scope(&self, vs: &VarStore, prefix: &str) -> Result<()> {
        let below =
            |(name, variable): (String, Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), variable));
        self.load(vs.variables().into_iter().filter_map(below), prefix, LoadMode::Copy)
    }

    /// [`Checkpoint::load_into`] for inference: a contiguous variable on the CPU whose dtype is the file's takes the
    /// file's own pages as its memory, without a copy, and reads them on first use.
    ///
    /// The file must not change while the variables live (see [`Checkpoint::watch`]); it may be renamed, replaced
    /// by renaming, or removed, which frees its disk space only when they are dropped. Writes to such a variable stay
    /// in memory.
    ///
    /// # Errors
    /// As [`Checkpoint::load_into`].
    pub fn load_mmap(&self, vs: &mut VarStore) -> Result<()> {
        self.load(vs.variables(), "", LoadMode::Map)
    }

    /// [`Checkpoint::load_into`] for named tensors outside a model, such as an optimizer's state: all of them or none.
    ///
    /// # Errors
    /// As [`Checkpoint::load_into`].
    pub fn copy_into(&self, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<()> {
        self.load(tensors, "", LoadMode::Copy)
    }

    /// Checks that [`Checkpoint::load_into`] would load `vs`, without loading anything.
    ///
    /// # Errors
    /// [`Error::Weights`] as there.
    pub fn check(&self, vs: &VarStore) -> Result<()> {
        self.compare(&sorted(vs.variables()), "")
    }

    fn load(
        &self,
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        prefix: &str,
        placement: LoadMode,
    ) -> Result<()> {
        let mut tensors = sorted(tensors);
        self.compare(&tensors, prefix)?;
        self.check_real(&tensors, prefix)?;
        let pages = self.pages()?;
        // In the file's order: read ahead by the system, and each deflated storage inflated once.
        tensors.sort_by_key(|(name, _)| self.source(name).map(Source::place));
        let loaded: Result<()> = tch::no_grad(|| {
            // One tensor at a time, whose pages are released at once: no second copy of the whole model.
            for (name, mut tensor) in tensors {
                match self.source(&name).and_then(|source| source.map_tensor(&pages)) {
                    Some(mapped) if placement == LoadMode::Map && can_replace(&mapped, &tensor) => {
                        tensor.set_data(&mapped.as_strided(tensor.size(), tensor.stride(), None));
                    }
                    Some(mapped) => tensor.f_copy_(&mapped)?,
                    None => tensor.f_copy_(&self.tensor(&name)?)?,
                }
            }
            Ok(())
        });
        self.files.iter().for_each(|file| file.drop_inflated());
        loaded?;
        self.watch().check()
    }

    /// Refuses complex tensors for real variables, which libtorch would cut to their real parts.
    fn check_real(&self, tensors: &[(String, Tensor)], prefix: &str) -> Result<()> {
        for (name, tensor) in tensors {
            let kind = self.info(name).map_or(Kind::Float, |info| info.kind);
            if is_complex(kind) && !is_complex(tensor.kind()) {
                let why = format!("tensor `{prefix}{name}`: expected real numbers, got {kind:?}");
                return Err(Error::format(self.path(), why));
            }
        }
        Ok(())
    }

    /// Lists every difference between `tensors` and the file, in one error.
    fn compare(&self, tensors: &[(String, Tensor)], prefix: &str) -> Result<()> {
        let mut mismatch = Mismatch::default();
        for (name, tensor) in tensors {
            let full = || format!("{prefix}{name}");
            match self.info(name) {
                None => mismatch.missing.push(full()),
                Some(info) if info.shape != tensor.size() => {
                    mismatch.misshaped.push((full(), tensor.size(), info.shape));
                }
                Some(_) => {}
            }
        }
        let known: BTreeSet<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        let unknown = self.names().filter(|name| !known.contains(name));
        mismatch.unexpected = unknown.map(|name| format!("{prefix}{name}")).collect();
        if mismatch.is_empty() {
            return Ok(());
        }
        Err(Error::Weights { path: self.path().to_path_buf(), mismatch })
    }
}

fn sorted(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Vec<(String, Tensor)> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}

/// Returns whether the memory of `mapped`, a contiguous CPU tensor of the variable's shape, may replace the variable's.
fn can_replace(mapped: &Tensor, variable: &Tensor) -> bool {
    variable.device() == Device::Cpu && variable.kind() == mapped.kind() && variable.is_contiguous()
}
