//! A run on disk: the only code that knows where its things lie.

use std::io::Write;
use std::path::{Path, PathBuf};

use ldm_core::{Error, FolderLock, Result, files};

use crate::run::event_file::EventFile;
use crate::run::retention::Retention;
use crate::run::state::{self, TrainState};

/// ```text
/// runs/NAME/
///   config.yaml            what was asked, resolved, complete
///   environment.json       versions, device, seed, data fingerprint
///   metrics.jsonl          a line a logged step
///   tensorboard/           the same as event files
///   samples/step-0001000.png
///   checkpoints/step-0001000/   model.safetensors  ema.safetensors  optimizer.safetensors  state.json
///   checkpoints/latest     names the newest complete one
///   model/                 config.yaml + model.safetensors: what one hands on
/// ```
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    /// Of who writes.
    lock: Option<FolderLock>,
}

/// Checkpoints under construction carry this before their name, so that nobody takes one for whole.
const PARTIAL: &str = ".part-";

impl RunDir {
    /// Makes the folder of a new run, which is this process' own until the run is dropped.
    ///
    /// # Errors
    /// [`Error::Data`] when there is something there already, [`Error::Io`] when it cannot be made.
    pub fn create(root: &Path) -> Result<Self> {
        let taken = root.exists() && std::fs::read_dir(root).map_err(Error::io(root))?.next().is_some();
        if taken {
            return Err(Error::data(
                root,
                "this run exists: go on with it by --resume, or name another by --run",
            ));
        }
        for folder in ["samples", "checkpoints", "model"] {
            let folder = root.join(folder);
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        Ok(Self { root: root.to_path_buf(), lock: Some(FolderLock::take(root)?) })
    }

    /// Opens the folder of a run, to read.
    ///
    /// # Errors
    /// [`Error::Data`] when it is none.
    pub fn open(root: &Path) -> Result<Self> {
        if root.join("config.yaml").is_file() && root.join("checkpoints").is_dir() {
            return Ok(Self { root: root.to_path_buf(), lock: None });
        }
        Err(Error::data(root, "not a run directory: it has no config.yaml and checkpoints/"))
    }

    /// The folder of a run that another rank has made and writes.
    pub(crate) fn of_others(root: &Path) -> Self {
        Self { root: root.to_path_buf(), lock: None }
    }

    /// Makes it this process' own, to go on with.
    ///
    /// # Errors
    /// As [`FolderLock::take`].
    pub(crate) fn lock(&mut self) -> Result<()> {
        self.lock = Some(FolderLock::take(&self.root)?);
        Ok(())
    }

    /// Its folder.
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

    /// The folder one hands on.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// The image of step `step`.
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
        // One write a line: a line is there whole or not at all.
        file.write_all(format!("{line}\n").as_bytes()).map_err(Error::io(&path))
    }

    /// Drops the lines of steps after `step`: the steps that a resumed run takes again.
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

    /// Starts an event file of TensorBoard's; `from` is the step a resumed run goes on from.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn events(&self, from: Option<u64>) -> Result<EventFile> {
        EventFile::create(&self.root.join("tensorboard"), from)
    }

    /// Has `write` fill the folder of the checkpoint of step `step`, and gives it its name when it is whole and
    /// durable; then forgets those that `keep` does not name.
    ///
    /// # Errors
    /// Whatever `write` returns, and [`Error::Io`]; nothing half-written stays, and older checkpoints are untouched.
    pub fn checkpoint(
        &self,
        step: u64,
        keep: &Retention,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let folder = self.root.join("checkpoints");
        let whole = folder.join(name(step));
        let partial = folder.join(format!("{PARTIAL}{}", name(step)));
        // Left by a run that was killed here, or anywhere before.
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
        let stays = keep.of(&states);
        for ((step, path), state) in kept.iter().zip(&states) {
            if !stays.contains(&state.step) {
                // Under a name of its own while it goes: what is half removed is no checkpoint.
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
            .ok_or_else(|| Error::data(&self.root, "this run has no complete checkpoint to resume from"))
    }
}

fn name(step: u64) -> String {
    format!("step-{step:07}")
}
