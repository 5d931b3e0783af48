//! The study of the downsampling factor f: how much to compress before diffusion (Rombach et al. 2022, §4.1), on any
//! data and budget.

mod diffusion;
mod evaluator;
mod first_stage;
mod plan;
mod plots;
mod report;
mod results;
mod study_dir;
mod study_file;
mod tables;
mod training;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ldm_core::device::device_name;
use ldm_core::{Error, FolderLock, Result, files};
use ldm_train::{Finished, RunConfig};
use tch::Device;

use crate::Reporter;
use evaluator::Evaluator;
use study_dir::{read, write};

pub use results::{
    BySteps, DiffusionResult, FactorResult, FirstStageResult, Quality, QualityPoint, ReferenceResult,
    SamplingResult, StudyResults, TrainingCost,
};
pub use study_dir::{StudyDir, StudyPart};
pub use study_file::{
    FactorConfig, MeasureConfig, StudyConfig, StudyFile, StudyProfile, TrainingBudget, TrainingBudgets,
};

/// A study in its folder.
pub struct Study<'a> {
    file: StudyFile,
    folder: StudyDir,
    device: Device,
    stop: &'a AtomicBool,
    reporter: &'a dyn Reporter,
}

impl<'a> Study<'a> {
    /// Reads the study of `folder`. When `stop` is set, it ends after the current step.
    ///
    /// # Errors
    /// When `study.yaml` cannot be read.
    pub fn open(
        folder: StudyDir,
        device: Device,
        stop: &'a AtomicBool,
        reporter: &'a dyn Reporter,
    ) -> Result<Self> {
        let path = folder.path("study.yaml");
        let text = ldm_core::text::read(&path)?;
        let file = StudyFile::parse(&text, &path, &[])?;
        Ok(Self { file, folder, device, stop, reporter })
    }

    /// Returns its folder.
    pub fn folder(&self) -> &StudyDir {
        &self.folder
    }

    fn config(&self) -> &StudyConfig {
        &self.file.study
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Runs every unfinished part by `run_part`, which may start a process to measure its peak memory, and writes the
    /// results.
    ///
    /// # Errors
    /// Those of `run_part`, of the results, and when another process runs this study.
    pub fn run<E: From<Error>>(
        &self,
        mut run_part: impl FnMut(StudyPart) -> std::result::Result<Finished, E>,
    ) -> std::result::Result<Finished, E> {
        let lock = FolderLock::take(self.folder.root())?;
        lock.note().iter().for_each(|note| self.reporter.warn(note));
        let parts = self.parts();
        for (index, part) in parts.iter().enumerate() {
            if self.folder.result(*part).exists() {
                continue;
            }
            self.reporter.say(&format!("{} (part {} of {})", part.title(), index + 1, parts.len()));
            if run_part(*part)? == Finished::Stopped {
                return Ok(Finished::Stopped);
            }
            if !self.folder.result(*part).exists() {
                return Err(Error::invalid(format!("{}: ended without a result", part.title())).into());
            }
            if let StudyPart::Sampling(_) = part {
                self.collect()?; // the results so far
            }
        }
        self.collect()?;
        Ok(Finished::Done)
    }

    /// Runs every part in this process: the peak memory of a part includes that of the parts before it.
    ///
    /// # Errors
    /// As [`Study::run`] and [`Study::run_part`].
    pub fn run_in_process(&self) -> Result<Finished> {
        self.run(|part| self.run_part(part))
    }

    /// Runs one part and writes its result.
    ///
    /// # Errors
    /// When training, sampling or evaluation fails.
    pub fn run_part(&self, part: StudyPart) -> Result<Finished> {
        match part {
            StudyPart::Reference => self.reference().map(|()| Finished::Done),
            StudyPart::FirstStage(f) => first_stage::run(self, f),
            StudyPart::Diffusion(f) => diffusion::run(self, f),
            StudyPart::Sampling(f) => diffusion::sample(self, f),
        }
    }

    fn parts(&self) -> Vec<StudyPart> {
        let mut parts = vec![StudyPart::Reference];
        for factor in &self.config().factors {
            if factor.f > 1 {
                parts.push(StudyPart::FirstStage(factor.f));
            }
            parts.extend([StudyPart::Diffusion(factor.f), StudyPart::Sampling(factor.f)]);
        }
        parts
    }

    /// Evaluates real images of the training set against the held-out ones.
    fn reference(&self) -> Result<()> {
        let f = self.config().factors.first().expect("a checked study has factors").f;
        let run = RunConfig::read(self.folder.of(f, "diffusion.yaml"), &[])?;
        let data = plan::open_held_out(&run)?;
        let [_, height, width] = data.get(0, 0)?.size;
        let evaluator = Evaluator::new(data.clone(), &self.config().measure, self.device)?;
        let floor = evaluator.floor(&run.data.train.open(Path::new("."))?)?;
        let result = ReferenceResult {
            dataset: data.name(),
            fingerprint: data.fingerprint(),
            images: evaluator.count(),
            features: evaluator.network().name().into(),
            size: [height as i64, width as i64],
            floor,
            device: device_name(self.device),
            threads: ldm_libtorch::threads(),
        };
        write(&self.folder.result(StudyPart::Reference), &result)
    }

    /// Writes the results so far.
    fn collect(&self) -> Result<()> {
        let mut factors = Vec::new();
        for factor in &self.config().factors {
            let f = factor.f;
            if !self.folder.result(StudyPart::Sampling(f)).exists() {
                continue;
            }
            let first_stage =
                (f > 1).then(|| read(&self.folder.result(StudyPart::FirstStage(f)))).transpose()?;
            let diffusion = read(&self.folder.result(StudyPart::Diffusion(f)))?;
            let sampling = read(&self.folder.result(StudyPart::Sampling(f)))?;
            factors.push(FactorResult { f, first_stage, diffusion, sampling });
        }
        let results = StudyResults {
            ldm: env!("CARGO_PKG_VERSION").into(),
            study: self.config().clone(),
            reference: read(&self.folder.result(StudyPart::Reference))?,
            factors,
        };
        write(&self.folder.path("results.json"), &results)?;
        files::write_bytes(self.folder.path("results.csv"), tables::sets(&results).as_bytes())?;
        files::write_bytes(self.folder.path("first-stages.csv"), tables::first_stages(&results).as_bytes())?;
        let plots = plots::all(&results)?;
        for plot in &plots {
            files::write_bytes(self.folder.path(&plot.file), plot.svg.as_bytes())?;
        }
        let page = report::html(&results, &plots, &self.folder)?;
        files::write_bytes(self.folder.path("report.html"), page.as_bytes())
    }
}
