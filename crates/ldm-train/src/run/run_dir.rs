//! The run directory and its layout.

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
///   metrics.jsonl          one line per logged step
///   tensorboard/           metrics and samples as event files
///   samples/step-0001000.png
///   checkpoints/step-0001000/   model.safetensors  ema.safetensors  optimizer.safetensors  state.json
///   checkpoints/latest     the name of the newest complete checkpoint
///   model/                 config.yaml + model.safetensors, the exported model
/// ```
///
/// `config.yaml` is that of the run's [`RunConfig`](crate::RunConfig). A run of
/// [`Trainer::builder`](crate::Trainer::builder) has no model config: its `config.yaml` records `train` and `loader`
/// and is not read again, and `model/` holds `model.safetensors` alone. Such a run is resumed by
/// [`TrainerBuilder::resume`](crate::TrainerBuilder::resume).
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    /// Held by the process that writes.
    _lock: Option<FolderLock>,
}

/// Prefix of incomplete checkpoints, which are never loaded.
const PARTIAL: &str = ".part-";

impl RunDir {
    /// Creates the folder of a new run, locked for this process until the `RunDir` is dropped.
    ///
    /// # Errors
    /// [`Error::Data`] when the folder is not empty, [`Error::Io`] when it cannot be created.
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
        Err(Error::data(root, "expected a run directory with config.yaml and checkpoints/, got another path"))
    }

    /// The folder of a run that rank 0 has created and writes to.
    pub(crate) fn of_rank_zero(root: &Path) -> Self {
        Self { root: root.to_path_buf(), _lock: None }
    }

    /// Opens the folder of a run to resume it; rank 0 locks it.
    ///
    /// # Errors
    /// As [`RunDir::open`] and [`FolderLock::take`]; [`Error::Ranks`] when another rank has ended.
    pub(crate) fn open_to_resume(root: &Path, distributed: &Distributed) -> Result<Self> {
        let run = Self::open(root)?;
        let lock = distributed.rank_zero_only(|| FolderLock::take(root))?;
        Ok(Self { _lock: lock, ..run })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of `config.yaml`.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.yaml")
    }

    /// The path of `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The path of the exported model's folder.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// The path of the preview image of step `step`.
    pub fn sample(&self, step: u64) -> PathBuf {
        self.root.join("samples").join(format!("{}.png", name(step)))
    }

    /// Writes `config.yaml` and `environment.json`.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written.
    pub fn write_head(&self, config: &str, environment: &serde_json::Value) -> Result<()> {
        files::write_bytes(self.config(), config.as_bytes())?;
        let text = format!("{environment:#}\n");
        files::write_bytes(self.root.join("environment.json"), text.as_bytes())
    }

    /// Appends a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn log(&self, line: &serde_json::Value) -> Result<()> {
        let path = self.metrics();
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        // One write per line, so that readers see whole lines.
        file.write_all(format!("{line}\n").as_bytes()).map_err(Error::io(&path))
    }

    /// Removes the lines after step `step`, which a resumed run writes again.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn truncate_metrics(&self, step: u64) -> Result<()> {
        let path = self.metrics();
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
        let mut remaining = String::new();
        for line in text.lines() {
            let parsed: Option<serde_json::Value> = serde_json::from_str(line).ok();
            if parsed.and_then(|line| line["step"].as_u64()).is_some_and(|at| at <= step) {
                remaining.push_str(line);
                remaining.push('\n');
            }
        }
        files::write_bytes(path, remaining.as_bytes())
    }

    /// Creates a TensorBoard event file; `from` is the step of a resumed run.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be created.
    pub(crate) fn events(&self, from: Option<u64>) -> Result<EventFile> {
        EventFile::create(&self.root.join("tensorboard"), from)
    }

    /// Writes the checkpoint of step `step`: `write` fills a temporary folder, which is renamed once it is complete and
    /// durable. Then removes the checkpoints that `retention` does not retain.
    ///
    /// # Errors
    /// The errors of `write`, and [`Error::Io`]; then no partial checkpoint is left and older ones are unchanged.
    pub fn checkpoint(
        &self,
        step: u64,
        retention: &Retention,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let folder = self.root.join("checkpoints");
        let whole = folder.join(name(step));
        let partial = folder.join(format!("{PARTIAL}{}", name(step)));
        // Partial checkpoints of a killed run.
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
            // A rename is durable once its folder is synchronized.
            std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(Error::io(&folder))
        });
        if let Err(error) = written {
            let _ = std::fs::remove_dir_all(&partial);
            return Err(error);
        }
        files::write_bytes(folder.join("latest"), format!("{}\n", name(step)).as_bytes())?;
        let complete = self.checkpoints()?;
        let states: Vec<TrainState> =
            complete.iter().map(|(_, path)| state::read_state(path)).collect::<Result<_>>()?;
        let retained = retention.retained(&states);
        for ((step, path), state) in complete.iter().zip(&states) {
            if !retained.contains(&state.step) {
                // Renamed first, so that a partially removed folder is not taken for a checkpoint.
                let removed = folder.join(format!("{PARTIAL}{}", name(*step)));
                std::fs::rename(path, &removed).map_err(Error::io(path))?;
                std::fs::remove_dir_all(&removed).map_err(Error::io(&removed))?;
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
