//! The strict loader: everything fits, or nothing changes.

use std::collections::BTreeSet;

use tch::nn::VarStore;
use tch::{Device, Tensor};

use super::Checkpoint;
use ldm_core::{Error, Mismatch, Result};

impl Checkpoint {
    /// Loads every variable of `vs`.
    ///
    /// Every variable must be found with its shape (nothing is broadcast) and every tensor of the file must be
    /// used. A variable keeps its dtype, its device and its layout in memory. When something does not fit, nothing is
    /// changed.
    ///
    /// # Errors
    /// [`Error::Weights`] listing all missing, unexpected and misshaped names at once; [`Error::Format`] when the
    /// bytes of a compressed tensor are damaged, which is found out while loading.
    pub fn load_into(&self, vs: &mut VarStore) -> Result<()> {
        self.load_scope(vs, "")
    }

    /// [`Checkpoint::load_into`] for the variables whose names start with `prefix`; the file's names are taken as
    /// below it.
    ///
    /// # Errors
    /// As [`Checkpoint::load_into`]; the names listed are those of `vs`.
    pub fn load_scope(&self, vs: &VarStore, prefix: &str) -> Result<()> {
        self.fill(vs, prefix, false)
    }

    /// [`Checkpoint::load_into`] for a model that only answers: a contiguous variable on the CPU whose dtype is the
    /// file's takes the file's own pages as its memory, without a copy, and reads them when it is first used.
    ///
    /// The file must then stay as it is while the variables live (see [`ldm_libtorch::map_file`]); it may be renamed,
    /// replaced by renaming, or removed, which gives its room on the disk back only when they are gone. What is
    /// written to such a variable stays in memory.
    ///
    /// # Errors
    /// As [`Checkpoint::load_into`].
    pub fn load_mmap(&self, vs: &mut VarStore) -> Result<()> {
        self.fill(vs, "", true)
    }

    /// Whether [`Checkpoint::load_into`] would load `vs`, without loading anything.
    ///
    /// # Errors
    /// [`Error::Weights`] as there.
    pub fn check(&self, vs: &VarStore) -> Result<()> {
        let mut variables: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        let mismatch = self.compare(&variables, "");
        if mismatch.is_empty() {
            return Ok(());
        }
        Err(Error::Weights { path: self.path().to_path_buf(), mismatch })
    }

    fn fill(&self, vs: &VarStore, prefix: &str, lend: bool) -> Result<()> {
        let mut variables: Vec<(String, Tensor)> = vs
            .variables()
            .into_iter()
            .filter_map(|(name, variable)| Some((name.strip_prefix(prefix)?.to_owned(), variable)))
            .collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        let mismatch = self.compare(&variables, prefix);
        if !mismatch.is_empty() {
            return Err(Error::Weights { path: self.path().to_path_buf(), mismatch });
        }
        let pages = self.pages()?;
        tch::no_grad(|| {
            // One tensor at a time, whose pages are given back at once: no second copy of the whole model.
            for (name, mut variable) in variables {
                match self.source(&name).and_then(|source| source.lend(&pages)) {
                    Some(lent) if lend && can_stand_for(&lent, &variable) => {
                        variable.set_data(&lent.as_strided(variable.size(), variable.stride(), None));
                    }
                    Some(lent) => variable.f_copy_(&lent)?,
                    None => variable.f_copy_(&self.tensor(&name)?)?,
                }
            }
            Ok(())
        })
    }

    fn compare(&self, variables: &[(String, Tensor)], prefix: &str) -> Mismatch {
        let mut mismatch = Mismatch::default();
        for (name, variable) in variables {
            let full = || format!("{prefix}{name}");
            match self.info(name) {
                None => mismatch.missing.push(full()),
                Some(info) if info.shape != variable.size() => {
                    mismatch.misshaped.push((full(), variable.size(), info.shape));
                }
                Some(_) => {}
            }
        }
        let known: BTreeSet<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
        let unknown = self.names().filter(|name| !known.contains(name));
        mismatch.unexpected = unknown.map(|name| format!("{prefix}{name}")).collect();
        mismatch
    }
}

/// Whether a variable's memory may be exchanged for that of `lent`, a contiguous tensor of its shape on the CPU.
fn can_stand_for(lent: &Tensor, variable: &Tensor) -> bool {
    variable.device() == Device::Cpu && variable.kind() == lent.kind() && variable.is_contiguous()
}
