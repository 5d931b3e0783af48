//! The folder `checkpoints/` of a run: durable writes, retention, and the checkpoint to resume from.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ldm_core::{Error, Result, files};

use crate::run::retention::Retention;
use crate::run::state::{self, TrainState};

/// Prefix of folders that are no checkpoints: of one that is being written, …
const PARTIAL: &str = ".part-";
/// … of one that is replaced by another of the same step, …
const REPLACED: &str = ".part-old-";
/// … and of one that is removed.
const REMOVED: &str = ".part-gone-";
/// Suffix of checkpoints after the one that a run was resumed from.
const ASIDE: &str = "aside";

/// The folder `checkpoints/` of a run.
#[derive(Debug)]
pub(crate) struct CheckpointDir {
    folder: PathBuf,
}

/// The checkpoint to resume from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resumable {
    pub(crate) step: u64,
    pub(crate) path: PathBuf,
    /// Newer checkpoints that cannot be read, with the reason.
    pub(crate) passed_over: Vec<String>,
}

impl CheckpointDir {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder of the checkpoint of step `step`.
    fn of(&self, step: u64) -> PathBuf {
        self.folder.join(name(step))
    }

    /// Writes the checkpoint of step `step`: `write` fills a temporary folder, which is renamed once it is complete and
    /// durable. Then removes the checkpoints that `retention` does not retain. At no time is there less on disk than
    /// before: a checkpoint of the same step is removed after the new one has its name.
    ///
    /// # Errors
    /// The errors of `write`, and [`Error::Io`]; then no partial checkpoint is left and older ones are unchanged.
    pub(crate) fn write(
        &self,
        step: u64,
        retention: &Retention,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        self.clean()?;
        let (whole, partial) = (self.of(step), self.folder.join(format!("{PARTIAL}{}", name(step))));
        std::fs::create_dir(&partial).map_err(Error::io(&partial))?;
        // The entries of a folder are durable once it is synchronized, and so is a rename in its parent.
        let written = write(&partial)
            .and_then(|()| files::sync_folder(&partial))
            .and_then(|()| self.place(step, &partial))
            .and_then(|()| files::sync_folder(&self.folder));
        if let Err(error) = written {
            let _ = std::fs::remove_dir_all(&partial);
            return Err(error);
        }
        remove(&self.folder.join(format!("{REPLACED}{}", name(step))));
        self.name_latest(step)?;
        self.retain(retention)?;
        Ok(whole)
    }

    /// Writes the name of the checkpoint of step `step` to `latest`.
    pub(crate) fn name_latest(&self, step: u64) -> Result<()> {
        files::write_bytes(self.folder.join("latest"), format!("{}\n", name(step)).as_bytes())
    }

    /// Gives `partial` the name of the checkpoint of step `step`; one with this name is renamed first.
    fn place(&self, step: u64, partial: &Path) -> Result<()> {
        let (whole, old) = (self.of(step), self.folder.join(format!("{REPLACED}{}", name(step))));
        match std::fs::rename(&whole, &old) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(&whole)(error)),
            _ => {}
        }
        std::fs::rename(partial, &whole).map_err(|error| {
            let _ = std::fs::rename(&old, &whole); // fails harmlessly if there was none
            Error::io(&whole)(error)
        })
    }

    /// Removes the checkpoints that `retention` does not retain. One that cannot be read is neither counted nor
    /// removed.
    fn retain(&self, retention: &Retention) -> Result<()> {
        let readable: Vec<(PathBuf, TrainState)> = self
            .named()?
            .into_iter()
            .filter_map(|(step, path)| {
                Some((state::read_state(&path).ok().filter(|state| state.step == step)?, path))
            })
            .map(|(state, path)| (path, state))
            .collect();
        let states: Vec<&TrainState> = readable.iter().map(|(_, state)| state).collect();
        let retained = retention.retained(&states);
        for (path, state) in &readable {
            if !retained.contains(&state.step) {
                // Renamed first, so that a partially removed folder is not taken for a checkpoint.
                let gone = self.folder.join(format!("{REMOVED}{}", name(state.step)));
                std::fs::rename(path, &gone).map_err(Error::io(path))?;
                remove(&gone);
            }
        }
        Ok(())
    }

    /// Completes what a killed run began, by its lock's holder: a checkpoint that was complete but had no name yet, or
    /// lost it to one of the same step, gets it if no newer one is whole. Everything else that was begun is removed.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read or changed.
    pub(crate) fn recover(&self) -> Result<()> {
        for prefix in [PARTIAL, REPLACED] {
            for (entry, path) in self.entries()? {
                let Some(step) = entry.to_str().and_then(|entry| step_of(entry.strip_prefix(prefix)?)) else {
                    continue;
                };
                let newest = self.find(None, &[]).ok().map(|found| found.step);
                let is_newest = newest.is_none_or(|newest| newest < step) && !self.of(step).exists();
                if is_newest && state::check(&path, step, &[]).is_ok() {
                    std::fs::rename(&path, self.of(step)).map_err(Error::io(&path))?;
                    files::sync_folder(&self.folder)?;
                }
            }
        }
        self.clean()
    }

    /// Removes folders that are no checkpoints.
    fn clean(&self) -> Result<()> {
        for (entry, path) in self.entries()? {
            if entry.to_string_lossy().starts_with(PARTIAL) {
                remove(&path);
            }
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<(OsString, PathBuf)>> {
        let folder = &self.folder;
        std::fs::read_dir(folder)
            .map_err(Error::io(folder))?
            .map(|entry| entry.map(|entry| (entry.file_name(), entry.path())).map_err(Error::io(folder)))
            .collect()
    }

    /// Folders with the name of a checkpoint, whatever they hold, oldest first.
    fn named(&self) -> Result<Vec<(u64, PathBuf)>> {
        let step = |(entry, path): (OsString, PathBuf)| Some((step_of(entry.to_str()?)?, path));
        let mut found: Vec<(u64, PathBuf)> = self.entries()?.into_iter().filter_map(step).collect();
        found.sort();
        Ok(found)
    }

    /// True if no checkpoint was ever begun.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read; one that does not exist is empty.
    pub(crate) fn is_unstarted(&self) -> Result<bool> {
        match self.entries() {
            Ok(entries) => Ok(!entries.iter().any(|(entry, path)| {
                let entry = entry.to_string_lossy();
                step_of(&entry).is_some() || (entry.starts_with(PARTIAL) && path.join("state.json").exists())
            })),
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Finds the newest checkpoint that opens whole, or the one of `step`, with the files `required` besides those that
    /// every checkpoint has.
    ///
    /// # Errors
    /// [`Error::Data`] when there is none, with the reason for each that is damaged; [`Error::Io`] when the folder
    /// cannot be read.
    pub(crate) fn find(&self, step: Option<u64>, required: &[String]) -> Result<Resumable> {
        let named = self.named()?;
        let steps: Vec<String> = named.iter().map(|(step, _)| step.to_string()).collect();
        if let Some(step) = step
            && !named.iter().any(|(named, _)| *named == step)
        {
            let known = if steps.is_empty() { "none".into() } else { steps.join(", ") };
            let message = format!("expected the step of a checkpoint, one of {known}, got {step}");
            return Err(Error::data(&self.folder, message));
        }
        let mut passed_over = Vec::new();
        for (at, path) in named.into_iter().rev().filter(|(at, _)| step.is_none_or(|step| *at == step)) {
            match state::check(&path, at, required) {
                Ok(_) => return Ok(Resumable { step: at, path, passed_over }),
                Err(error) => passed_over.push(error.to_string()),
            }
        }
        let got = if passed_over.is_empty() { "none".to_owned() } else { passed_over.join("; ") };
        Err(Error::data(&self.folder, format!("expected a complete checkpoint to resume from, got {got}")))
    }

    /// Renames the checkpoints after step `step`, which a resumed run would take for newer ones, and returns the new
    /// paths.
    ///
    /// # Errors
    /// [`Error::Io`] when one cannot be renamed.
    pub(crate) fn set_aside_after(&self, step: u64) -> Result<Vec<PathBuf>> {
        let mut renamed = Vec::new();
        for (later, path) in self.named()?.into_iter().filter(|(later, _)| *later > step) {
            let free = |count: &u64| {
                let suffix = if *count == 1 { String::new() } else { format!("-{count}") };
                self.folder.join(format!("{}.{ASIDE}{suffix}", name(later)))
            };
            let target = (1..=u64::MAX).map(|count| free(&count)).find(|target| !target.exists());
            let target = target.expect("more names than files");
            std::fs::rename(&path, &target).map_err(Error::io(&path))?;
            renamed.push(target);
        }
        if !renamed.is_empty() {
            files::sync_folder(&self.folder)?;
        }
        Ok(renamed)
    }
}

/// The name of the checkpoint of step `step`.
pub(crate) fn name(step: u64) -> String {
    format!("step-{step:07}")
}

/// The step of a checkpoint's name.
pub(crate) fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("step-")?.parse().ok()
}

/// Removes a folder or file. What cannot be removed, such as a file that another process holds open on NFS, is left to
/// the next checkpoint: it has no name of a checkpoint.
fn remove(path: &Path) {
    if std::fs::remove_dir_all(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
}
