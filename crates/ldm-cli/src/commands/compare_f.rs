//! `ldm compare-f`: how much to compress before diffusing (paper §4.1), on one's own data and budget.

mod child;
mod config;
mod diffusion;
mod first_stage;
mod judge;
mod layout;
mod plan;
mod plots;
mod report;
mod results;
mod tables;
mod training;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, bail};
use ldm_core::device::device_name;
use ldm_core::{FolderLock, files};
use ldm_train::RunConfig;
use tch::Device;

use crate::args::CompareFArgs;
use crate::interrupt::Stop;
use crate::model;
use crate::progress::Printer;
use crate::report::Interrupted;
use config::StudyFile;
use judge::Judge;
use layout::{Folder, Part, absolute, read, write};
use results::{Factor, Reference, Results};

/// What a part works with.
struct Work<'a> {
    study: StudyFile,
    folder: Folder,
    device: Device,
    stop: &'a Stop,
    printer: Printer,
}

impl Work<'_> {
    fn stopped(&self) -> bool {
        self.stop.flag().load(Ordering::SeqCst)
    }

    fn interrupted(&self) -> anyhow::Error {
        Interrupted(self.stop.code()).into()
    }
}

pub(crate) fn run(args: &CompareFArgs, printer: Printer) -> anyhow::Result<()> {
    let device = model::device(&args.device, Some(printer))?;
    let stop = Stop::on_signals()?;
    let folder = match &args.resume {
        Some(root) => Folder::open(root)?,
        None => create(args)?,
    };
    let path = folder.path("study.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let work = Work { study: StudyFile::parse(&text, &path, &[])?, folder, device, stop: &stop, printer };
    if let Some(name) = &args.part {
        crate::launch::end_with_the_launcher();
        return work.part(Part::parse(name)?);
    }
    let _lock = FolderLock::take(work.folder.root())?;
    work.all(&args.device)
}

/// Makes the folder of a new study, when nothing is wrong with it.
fn create(args: &CompareFArgs) -> anyhow::Result<Folder> {
    let (overrides, files): (Vec<String>, Vec<String>) =
        args.words.iter().cloned().partition(|word| word.contains('='));
    let (text, path, name) = match (&files[..], args.profile) {
        ([file], None) => {
            let path = PathBuf::from(file);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (std::fs::read_to_string(&path).with_context(|| file.clone())?, path, name)
        }
        ([], Some(profile)) => {
            let name = profile.name();
            (profile.text().into(), format!("{name}.yaml").into(), name.into())
        }
        _ => bail!("expected the file of a study, or --profile"),
    };
    let root = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(format!("compare-f-{name}")));
    let study = StudyFile::parse(&text, &path, &overrides)?;
    let runs = plan::plan(&study, &path, &absolute(&root)?)?;
    let folder = Folder::create(&root)?;
    runs.iter().try_for_each(|run| run.write(&folder))?;
    // Last: a folder with it is a whole study.
    files::write_bytes(folder.path("study.yaml"), study.to_text().as_bytes())?;
    Ok(folder)
}

impl Work<'_> {
    /// Every part that is not done, each in a process of its own; then what was found.
    fn all(&self, device: &crate::args::DeviceArgs) -> anyhow::Result<()> {
        let parts = self.parts();
        for (index, part) in parts.iter().enumerate() {
            if self.folder.done(*part).exists() {
                continue;
            }
            self.printer.say(&format!("{} (part {} of {})", part.title(), index + 1, parts.len()));
            child::run(self, *part, device)?;
            if let Part::Sampling(_) = part {
                self.collect()?; // what there is so far
            }
        }
        self.collect()?;
        println!("{}", self.folder.path("report.html").display());
        Ok(())
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Reference];
        for factor in &self.study.study.factors {
            if factor.f > 1 {
                parts.push(Part::FirstStage(factor.f));
            }
            parts.extend([Part::Diffusion(factor.f), Part::Sampling(factor.f)]);
        }
        parts
    }

    fn part(&self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Reference => self.reference(),
            Part::FirstStage(f) => first_stage::run(self, f),
            Part::Diffusion(f) => diffusion::run(self, f),
            Part::Sampling(f) => diffusion::sample(self, f),
        }
    }

    /// Looks at the real images, and at how far others of them are.
    fn reference(&self) -> anyhow::Result<()> {
        let f = self.study.study.factors.first().expect("a study compares something").f;
        let run = RunConfig::read(self.folder.of(f, "diffusion.yaml"), &[])?;
        let data = plan::open_held_back(&run)?;
        let [_, height, width] = data.get(0, 0)?.size;
        let judge = Judge::new(data.clone(), &self.study.study.measure, self.device)?;
        let floor = judge.floor(&run.data.train.open(Path::new("."))?)?;
        let found = Reference {
            dataset: data.name(),
            fingerprint: data.fingerprint(),
            images: judge.count(),
            features: judge.network().name().into(),
            size: [height as i64, width as i64],
            floor,
            device: device_name(self.device),
            threads: ldm_libtorch::threads(),
        };
        write(&self.folder.done(Part::Reference), &found)
    }

    /// Writes what is known by now.
    fn collect(&self) -> anyhow::Result<()> {
        let mut factors = Vec::new();
        for factor in &self.study.study.factors {
            let f = factor.f;
            if !self.folder.done(Part::Sampling(f)).exists() {
                continue;
            }
            let first_stage = (f > 1).then(|| read(&self.folder.done(Part::FirstStage(f)))).transpose()?;
            let (diffusion, sampling) =
                (read(&self.folder.done(Part::Diffusion(f)))?, read(&self.folder.done(Part::Sampling(f)))?);
            factors.push(Factor { f, first_stage, diffusion, sampling });
        }
        let results = Results {
            ldm: env!("CARGO_PKG_VERSION").into(),
            study: self.study.study.clone(),
            reference: read(&self.folder.done(Part::Reference))?,
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
        Ok(files::write_bytes(self.folder.path("report.html"), page.as_bytes())?)
    }
}
