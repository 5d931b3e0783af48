//! Timing of latent diffusion models: seconds, throughput, peak memory and operations of each stage, relative to the
//! [`Roofline`] of the machine.
//!
//! It is a crate because two programs use it: `ldm bench` shows a [`BenchReport`], and the workspace's criterion
//! benches share [`wait`] and [`shape_text`].

mod device_check;
mod inputs;
mod machine;
mod measure;
mod nvidia_driver;
mod stages;
mod subject;
mod table;
mod training;

use ldm_core::{Error, Result};
use ldm_pipelines::Model;
use serde::Serialize;
use tch::{Device, Kind};

pub use device_check::{check_device, loaded_libtorch, why_no_cuda};
pub use machine::Roofline;
pub use measure::{OperationTiming, StageTiming, wait};
pub use stages::shape_text;
pub use subject::BenchSubject;
pub use table::{operation_table, stage_table};

use measure::StageRun;

/// Stages of a model to time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BenchStage {
    /// Encoding and decoding by the first stage.
    Autoencoder,
    /// One forward pass of the U-Net.
    Unet,
    /// Sampling, from noise to decoded images.
    Sample,
    /// One training step: loss, gradients, optimizer, EMA.
    Train,
}

/// Settings of a benchmark.
#[derive(Debug, Clone, Copy)]
pub struct BenchConfig {
    /// Images per batch.
    pub batch_size: i64,
    /// DDIM steps per sample, without guidance.
    pub steps: usize,
    /// Timed runs, after two warm-up runs.
    pub repeats: u64,
}

/// Progress of a benchmark, for the caller to show.
#[derive(Debug)]
pub enum BenchEvent<'a> {
    /// A stage starts.
    Stage {
        /// Its name.
        stage: &'static str,
        /// The shape of its input.
        shape: &'a [i64],
    },
    /// A remark on the model.
    Note(&'a str),
}

/// The timings of a model on this machine.
#[derive(Debug, Serialize)]
pub struct BenchReport {
    /// The speed of the machine.
    pub machine: Roofline,
    /// The stages.
    pub stages: Vec<StageTiming>,
}

/// Times one stage of `subject`, or all but training.
///
/// # Errors
/// When the model has no such stage, or cannot be built or run.
pub fn bench(
    subject: &BenchSubject,
    stage: Option<BenchStage>,
    config: BenchConfig,
    observe: &mut dyn FnMut(BenchEvent),
) -> Result<BenchReport> {
    let (device, kind) = (subject.device, subject.kind);
    let stages = stages_of(stage, subject)?;
    let machine = Roofline::measure(device, kind);
    let runs: Vec<StageRun> = if stages == [BenchStage::Train] {
        vec![training::time(config, subject, observe)?]
    } else {
        let model = subject.open()?;
        if stages != [BenchStage::Unet] {
            model.check_memory(subject.size)?;
        }
        if let Model::Diffusion(model) = &model {
            model.to_channels_last();
        }
        keep_freed_memory(kind);
        let mut runs = Vec::new();
        for stage in stages {
            runs.extend(stages::time(stage, config, subject, &model, observe)?);
        }
        runs
    };
    // Once more: other programs may have slowed the first measurement.
    let machine = machine.or_faster(Roofline::measure(device, kind));
    Ok(BenchReport { machine, stages: runs.into_iter().map(|run| run.against(&machine, device)).collect() })
}

/// Keeps freed memory, except in f16, which a CPU computes for its size alone. Called after the
/// conversion to channels_last, or the memory of the weights' first copies stays allocated.
fn keep_freed_memory(kind: Kind) {
    if kind != Kind::Half {
        ldm_libtorch::keep_freed_memory();
    }
}

/// Returns the stages to time.
fn stages_of(requested: Option<BenchStage>, subject: &BenchSubject) -> Result<Vec<BenchStage>> {
    let refuse = |message: &str| Err(Error::config(&subject.name, message));
    match (requested, subject.diffusion().is_some()) {
        (Some(BenchStage::Unet | BenchStage::Sample), false) => {
            refuse("expected a diffusion model, got a first stage alone; try autoencoder or train")
        }
        (Some(BenchStage::Autoencoder), _) if subject.first_stage().is_none() => {
            refuse("expected a first stage, got a diffusion model of pixels; try unet, sample or train")
        }
        (Some(stage), _) => Ok(vec![stage]),
        (None, true) if subject.first_stage().is_none() => Ok(vec![BenchStage::Unet, BenchStage::Sample]),
        (None, true) => Ok(vec![BenchStage::Autoencoder, BenchStage::Unet, BenchStage::Sample]),
        (None, false) => Ok(vec![BenchStage::Autoencoder]),
    }
}

/// Resets the peak memory that [`ldm_core::device::peak_memory`] reports.
fn reset_peak(device: Device) {
    if let Device::Cuda(index) = device {
        ldm_libtorch::reset_cuda_peak(index);
    } else {
        // Linux resets the peak (proc(5)); elsewhere the peak is that of the process so far.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
