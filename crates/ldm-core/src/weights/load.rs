//! The strict loader: everything fits, or nothing changes.

use std::collections::BTreeSet;

use tch::Tensor;
use tch::nn::VarStore;

use super::Checkpoint;
use crate::{Error, Mismatch, Result};

impl Checkpoint {
    /// Loads every variable of `vs`.
    ///
    /// Every variable must be found with its shape (nothing is broadcast) and every tensor of the file must be
    /// used. A variable keeps its dtype and its device. When something does not fit, nothing is changed.
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
        tch::no_grad(|| {
            for (name, mut variable) in variables {
                // One tensor at a time: no second copy of the whole model.
                variable.f_copy_(&self.tensor(&name)?)?;
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
