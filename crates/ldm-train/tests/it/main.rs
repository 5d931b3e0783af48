//! Training: losses against CompVis, bit-exact resume, and refusals.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test, also outside `#[test]` functions")]
#![allow(clippy::print_stderr, reason = "a test that skips reports it")]

mod adversarial;
mod classifier;
mod compvis_keys;
mod condition_pairs;
mod condition_schedule;
mod conditioners;
mod configs;
mod consistency;
mod diffusion_loss;
mod durability;
mod embedding;
mod experiments;
mod half;
mod image_channels;
mod init_from;
mod latent_cache;
mod lora;
mod loss_parity;
mod open_trainer;
mod optimizer;
mod previews;
mod prior_preservation;
mod ranks;
mod resume;
mod retrieval;
mod stopping;
mod tiny;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ldm_core::Prompt;
use ldm_core::device::test_device;
use ldm_data::Batch;
use ldm_train::{Event, Finished, RunConfig, Trainer};
use tch::Tensor;

/// Locks libtorch's global generator, which the tests of a process share: initialization and dropout draw from it.
fn lock_generator() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

fn config(text: &str, overrides: &[&str]) -> RunConfig {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    RunConfig::parse(text, "tiny.yaml", &overrides).unwrap()
}

/// Checks that a config is refused in one line, before anything is written.
#[track_caller]
fn check_refused(text: &str, overrides: &[&str], expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("run");
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let error = RunConfig::parse(text, "tiny.yaml", &overrides)
        .and_then(|config| Trainer::create(config, &root, test_device()))
        .expect_err(&format!("{overrides:?}"))
        .to_string();
    assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    assert!(!root.exists(), "something was written");
}

/// Runs to the end and returns every logged line.
fn run_to_end(trainer: &mut Trainer) -> Vec<BTreeMap<String, f64>> {
    let mut lines = Vec::new();
    let mut observe = |event: Event| {
        if let Event::Logged(line) = event {
            lines.push(line.clone());
        }
    };
    assert_eq!(trainer.run(&AtomicBool::new(false), &mut observe).unwrap(), Finished::Done);
    lines
}

/// A batch of these images and this condition.
fn batch_of(images: Tensor, prompt: Prompt) -> Batch {
    Batch {
        images,
        latents: None,
        prompt,
        label_map: None,
        crops: Vec::new(),
        names: vec!["image.png".into()],
    }
}
