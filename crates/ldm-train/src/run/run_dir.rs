//! The run directory and its layout.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ldm_core::{Error, FolderLock, Result, files};

use crate::distributed::Distributed;
use crate::run::checkpoints::{CheckpointDir, name, step_of};
use crate::run::event_file::EventFile;
use crate::run::retention::Retention;

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
    lock: Option<FolderLock>,
}

/// Files and folders of a run.
const WRITTEN: [&str; 9] = [
    ".lock",
    "checkpoints",
    "config.yaml",
    "environment.json",
    "latents.safetensors",
    "metrics.jsonl",
    "model",
    "samples",
    "tensorboard",
];

impl RunDir {
    /// Creates the folder of a new run, locked for this process until the `RunDir` is dropped.
    ///
    /// # Errors
    /// [`Error::Data`] when the folder is not empty, [`Error::Io`] when it cannot be created.
    pub fn create(root: &Path) -> Result<Self> {
        if root.exists() && !root.is_dir() {
            return Err(Error::data(root, "expected a new folder, got a file; try another --run"));
        }
        check_new(root)?; // before a lock's file is left in a folder of others
        files::make_folder(root)?;
        let lock = FolderLock::take(root)?;
        check_new(root)?; // another process may have been here meanwhile
        for folder in ["samples", "checkpoints", "model"] {
            let folder = root.join(folder);
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        Ok(Self { root: root.to_path_buf(), lock: Some(lock) })
    }

    /// Opens the folder of a run to read it.
    ///
    /// # Errors
    /// [`Error::Data`] when it is not a run directory.
    pub fn open(root: &Path) -> Result<Self> {
        if root.join("config.yaml").is_file() && root.join("checkpoints").is_dir() {
            return Ok(Self { root: root.to_path_buf(), lock: None });
        }
        Err(Error::data(root, "expected a run directory with config.yaml and checkpoints/, got another path"))
    }

    /// Checks that the folder `root` holds nothing but a run, so that it may be removed with all its files.
    ///
    /// # Errors
    /// [`Error::Data`] with the first other entry.
    pub fn check_removable(root: &Path) -> Result<()> {
        for entry in std::fs::read_dir(root).map_err(Error::io(root))? {
            let name = entry.map_err(Error::io(root))?.file_name();
            if !name.to_str().is_some_and(|name| WRITTEN.contains(&name)) {
                let got = root.join(name);
                let message = format!(
                    "expected only files of a run in a folder that is replaced, got {}",
                    got.display()
                );
                return Err(Error::data(root, message));
            }
        }
        Ok(())
    }

    /// The folder of a run that rank 0 has created and writes to.
    pub(crate) fn of_rank_zero(root: &Path) -> Self {
        Self { root: root.to_path_buf(), lock: None }
    }

    /// Opens the folder of a run to resume it; rank 0 locks it and completes a checkpoint that a killed run had written.
    ///
    /// # Errors
    /// As [`RunDir::open`] and [`FolderLock::take`]; [`Error::Ranks`] when another rank has ended.
    pub(crate) fn open_to_resume(root: &Path, distributed: &Distributed) -> Result<Self> {
        let run = Self::open(root)?;
        let lock = distributed.rank_zero_only(|| {
            let lock = FolderLock::take(root)?;
            run.checkpoints().recover()?;
            Ok(lock)
        })?;
        Ok(Self { lock, ..run })
    }

    /// The note of the lock.
    pub(crate) fn note(&self) -> Option<String> {
        self.lock.as_ref().and_then(FolderLock::note)
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
        self.write_config(config)?;
        let text = format!("{environment:#}\n");
        files::write_bytes(self.root.join("environment.json"), text.as_bytes())
    }

    /// Writes `config.yaml`.
    pub(crate) fn write_config(&self, config: &str) -> Result<()> {
        files::write_bytes(self.config(), config.as_bytes())
    }

    /// The fingerprint of the training set in `environment.json`, if it can be read.
    pub(crate) fn data_fingerprint(&self) -> Option<String> {
        let bytes = std::fs::read(self.root.join("environment.json")).ok()?;
        let environment: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        environment["data"].as_str().map(str::to_owned)
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

    /// Removes the lines after step `step`, which a resumed run writes again, and torn lines.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read or written.
    pub fn truncate_metrics(&self, step: u64) -> Result<()> {
        let path = self.metrics();
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            read => read.map_err(Error::io(&path))?,
        };
        let retained = |line: &&[u8]| {
            let parsed: Option<serde_json::Value> = serde_json::from_slice(line).ok();
            parsed.and_then(|line| line["step"].as_u64()).is_some_and(|at| at <= step)
        };
        let lines = bytes.split(|byte| *byte == b'\n').filter(retained);
        let text: Vec<u8> = lines.flat_map(|line| [line, b"\n"].concat()).collect();
        files::write_bytes(path, &text)
    }

    /// Makes `metrics.jsonl` and the entries of the run's folder durable.
    fn sync(&self) -> Result<()> {
        let path = self.metrics();
        match File::open(&path).and_then(|file| file.sync_data()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io(&path)(error)),
            _ => {}
        }
        files::sync_folder(&self.root)
    }

    /// Creates a TensorBoard event file; `from` is the step of a resumed run.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be created.
    pub(crate) fn events(&self, from: Option<u64>) -> Result<EventFile> {
        EventFile::create(&self.root.join("tensorboard"), from)
    }

    /// Writes the checkpoint of step `step`: `write` fills a temporary folder, which is renamed once it is complete and
    /// durable, and so are the lines of `metrics.jsonl` up to it. Then removes the checkpoints that `retention` does not
    /// retain; one that cannot be read is left alone.
    ///
    /// # Errors
    /// The errors of `write`, and [`Error::Io`]; then no partial checkpoint is left and older ones are unchanged.
    pub fn checkpoint(
        &self,
        step: u64,
        retention: &Retention,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        self.checkpoints().write(step, retention, |folder| {
            write(folder)?;
            self.sync()
        })
    }

    pub(crate) fn checkpoints(&self) -> CheckpointDir {
        CheckpointDir::new(self.root.join("checkpoints"))
    }

    /// Returns true if the folder `root` can be read and holds no checkpoint, whole or damaged: a run that ended before
    /// its first one.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be read.
    pub fn is_unstarted(root: &Path) -> Result<bool> {
        CheckpointDir::new(root.join("checkpoints")).is_unstarted()
    }

    /// The newest checkpoint that opens whole: all its files are there, with headers of their lengths.
    ///
    /// # Errors
    /// [`Error::Data`] when there is none, with the reason for each that is damaged.
    pub fn newest_checkpoint(&self) -> Result<PathBuf> {
        self.checkpoints().find(None, &[]).map(|found| found.path)
    }
}

/// Splits the path of a checkpoint, `RUN/checkpoints/step-0000600`, into the run and the step; any other path is a run.
pub(crate) fn run_and_step(path: &Path) -> (PathBuf, Option<u64>) {
    let split = |path: &Path| {
        let step = step_of(path.file_name()?.to_str()?)?;
        let folder = path.parent()?;
        (folder.file_name()? == "checkpoints").then(|| (folder.parent().map(Path::to_path_buf), step))
    };
    let found = split(path).or_else(|| split(&path.canonicalize().ok()?));
    match found {
        Some((root, step)) => {
            let root = root.filter(|root| !root.as_os_str().is_empty());
            (root.unwrap_or_else(|| PathBuf::from(".")), Some(step))
        }
        None => (path.to_path_buf(), None),
    }
}

/// Checks that `root` is no folder yet, or empty but for a lock.
fn check_new(root: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(root))?,
    };
    if entries.flatten().all(|entry| entry.file_name() == FolderLock::NAME) {
        return Ok(());
    }
    let message = match RunDir::open(root) {
        Ok(_) => "got a run; try --resume to continue it, or another --run",
        Err(_) => "got one with files that is no run; try another --run",
    };
    Err(Error::data(root, format!("expected a new folder, {message}")))
}
