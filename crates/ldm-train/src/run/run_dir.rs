//! The run directory: the only code that knows its layout.

use std::io::Write;
use std::path::{Path, PathBuf};

use ldm_core::{Error, FolderLock, Result, files};

use crate::distributed::Distributed;
use crate::run::event_file::EventFile;
use crate::run::retention::Retention;
use crate::run::state::{self, TrainState};

/// The directory of a run.
///
/// ```text
/// runs/NAME/
///   config.yaml            the resolved, complete config
///   environment.json       versions, device, seed, data fingerprint
///   metrics.jsonl          a line a logged step
///   tensorboard/           the same as event files
///   samples/step-0001000.png
///   checkpoints/step-0001000/   model.safetensors  ema.safetensors  optimizer.safetensors  state.json
///   checkpoints/latest     the name of the newest complete one
///   model/                 config.yaml + model.safetensors, the exported model
/// ```
///
/// `config.yaml` is that of the run's [`RunConfig`](crate::RunConfig). A run of [`Trainer::builder`](crate::Trainer::builder)
/// has no model config: its `config.yaml` records `train` and `loader` and is not read again, and `model/` holds
/// `model.safetensors` alone. Such a run is resumed by [`TrainerBuilder::resume`](crate::TrainerBuilder::resume).
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    /// Of the process that writes.
    _lock: Option<FolderLock>,
}

/// Prefix of checkpoints under construction: none of them is taken for complete.
const PARTIAL: &str = ".part-";

impl RunDir {
    /// Makes the folder of a new run, locked for this process until the run is dropped.
    ///
    /// # Errors
    /// [`Error::Data`] when the folder is not empty, [`Error::Io`] when it cannot be made.
    pub fn create(root: &Path) -> Result<Self> {
        let taken = root.exists() && std::fs::read_dir(root).map_err(Error::io(root))?.next().is_some();
        if taken {
            return Err(Error::data(
                root,
                "expected a new folder, got one with files; try --resume to continue that run, or another --run",
            ));
        }
        for folder in ["samples", "checkpoints", "model"] {
            let folder = root.join(folder);
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        Ok(Self { root: root.to_path_buf(), _lock: Some(FolderLock::take(root)?) })
    }

    /// Opens the folder of a run to read it.
    ///
    /// # Errors
    /// [`Error::Data`] when it is not a run directory.
    pub fn open(root: &Path) -> Result<Self> {
        if root.join("config.yaml").is_file() && root.join("checkpoints").is_dir() {
            return Ok(Self { root: root.to_path_buf(), _lock: None });
        }
        Err(Error::data(root, "expected a run directory with config.yaml and checkpoints/"))
    }

    /// The folder of a run that rank 0 has made and writes.
    pub(crate) fn of_rank_zero(root: &Path) -> Self {
        Self { root: root.to_path_buf(), _lock: None }
    }

    /// Opens the folder of a run to resume it; rank 0 locks it.
    ///
    /// # Errors
    /// As [`RunDir::open`] and [`FolderLock::take`]; when a rank has ended.
    pub(crate) fn open_to_resume(root: &Path, distributed: &Distributed) -> Result<Self> {
        let run = Self::open(root)?;
        let lock = distributed.rank_zero_only(|| FolderLock::take(root))?;
        Ok(Self { _lock: lock, ..run })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config.yaml`.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.yaml")
    }

    /// `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The folder of the exported model.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// The preview image of step `step`.
    pub fn sample(&self, step: u64) -> PathBuf {
        self.root.join("samples").join(format!("{}.png", name(step)))
    }

    /// Writes `config.yaml` and `environment.json`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_head(&self, config: &str, environment: &serde_json::Value) -> Result<()> {
        files::write_bytes(self.config(), config.as_bytes())?;
        let text = format!("{environment:#}\n");
        files::write_bytes(self.root.join("environment.json"), text.as_bytes())
    }

    /// Appends a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn log(&self, line: &serde_json::Value) -> Result<()> {
        let path = self.metrics();
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        // One write a line: readers see whole lines.
        file.write_all(format!("{line}\n").as_bytes()).map_err(Error::io(&path))
    }

    /// Drops the lines of steps after `step`, which a resumed run takes again.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn truncate_metrics(&self, step: u64) -> Result<()> {
        let path = self.metrics();
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
        let mut kept = String::new();
        for line in text.lines() {
            let parsed: Option<serde_json::Value> = serde_json::from_str(line).ok();
            if parsed.and_then(|line| line["step"].as_u64()).is_some_and(|at| at <= step) {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        files::write_bytes(path, kept.as_bytes())
    }

    /// Starts a TensorBoard event file; `from` is the step of a resumed run.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn events(&self, from: Option<u64>) -> Result<EventFile> {
        EventFile::create(&self.root.join("tensorboard"), from)
    }

    /// Writes the checkpoint of step `step`: `write` fills a temporary folder, which is renamed when it is complete and
    /// durable. Then removes the checkpoints that `keep` does not retain.
    ///
    /// # Errors
    /// The errors of `write`, and [`Error::Io`]; nothing half-written stays, and older checkpoints are untouched.
    pub fn checkpoint(
        &self,
        step: u64,
        keep: &Retention,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let folder = self.root.join("checkpoints");
        let whole = folder.join(name(step));
        let partial = folder.join(format!("{PARTIAL}{}", name(step)));
        // Left by a run that was killed.
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        std::fs::create_dir(&partial).map_err(Error::io(&partial))?;
        let written = write(&partial).and_then(|()| {
            if whole.exists() {
                std::fs::remove_dir_all(&whole).map_err(Error::io(&whole))?;
            }
            std::fs::rename(&partial, &whole).map_err(Error::io(&whole))?;
            // The name is durable once its folder is.
            std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(Error::io(&folder))
        });
        if let Err(error) = written {
            let _ = std::fs::remove_dir_all(&partial);
            return Err(error);
        }
        files::write_bytes(folder.join("latest"), format!("{}\n", name(step)).as_bytes())?;
        let kept = self.checkpoints()?;
        let states: Vec<TrainState> =
            kept.iter().map(|(_, path)| state::read_state(path)).collect::<Result<_>>()?;
        let stays = keep.retained(&states);
        for ((step, path), state) in kept.iter().zip(&states) {
            if !stays.contains(&state.step) {
                // Renamed first: a half-removed folder is no checkpoint.
                let going = folder.join(format!("{PARTIAL}{}", name(*step)));
                std::fs::rename(path, &going).map_err(Error::io(path))?;
                std::fs::remove_dir_all(&going).map_err(Error::io(&going))?;
            }
        }
        Ok(whole)
    }

    /// Complete checkpoints, oldest first.
    fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let folder = self.root.join("checkpoints");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
            if let Some(step) = step
                && path.join("state.json").is_file()
            {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The newest complete checkpoint.
    ///
    /// # Errors
    /// [`Error::Data`] when there is none.
    pub fn newest_checkpoint(&self) -> Result<PathBuf> {
        self.checkpoints()?
            .pop()
            .map(|(_, path)| path)
            .ok_or_else(|| Error::data(&self.root, "expected a complete checkpoint to resume from, got none"))
    }
}

fn name(step: u64) -> String {
    format!("step-{step:07}")
}
