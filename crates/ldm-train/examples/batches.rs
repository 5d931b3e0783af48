//! Exports the inputs of a run, for training on the same inputs in another program: the images and classes of every
//! batch, and the seed of each forward pass's noise, for `torch.manual_seed`.
//!
//!     cargo run --release -p ldm-train --example batches -- CONFIG.yaml BATCHES.safetensors [KEY=VALUE …]
//!
//! `image.K` is `[B, 3, H, W]` in `[-1, 1]` and `class.K` i64 `[B]`, of step K; `seeds` is `[2·steps]`, the bits of
//! unsigned numbers as i64, one per pass. A model with a discriminator has two passes per step, others one.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_core::noise::mix;
use ldm_core::{Error, Result};
use ldm_data::{Loader, LoaderConfig, Position};
use ldm_train::RunConfig;
use tch::Tensor;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, out, overrides @ ..] = &arguments[..] else {
        return Err(Error::invalid("expected CONFIG.yaml and BATCHES.safetensors, got other arguments"));
    };
    let config = RunConfig::read(config, overrides)?;
    let set = config.data.train.open(config.path().parent().unwrap_or(Path::new(".")))?;
    let loader = LoaderConfig {
        workers: config.data.num_workers,
        strict: true,
        ..LoaderConfig::new(config.data.batch_size, config.train.seed)
    };
    let mut tensors = Vec::new();
    let batches = Loader::new(set, loader, Position::default())?.take(config.train.steps as usize);
    for (step, batch) in batches.enumerate() {
        let batch = batch?;
        tensors.push((format!("image.{step}"), batch.images));
        if let Some(class) = batch.prompt.class {
            tensors.push((format!("class.{step}"), class));
        }
    }
    // The seeds of `PerStep::shared` with one rank.
    let seeds: Vec<i64> =
        (0..2 * config.train.steps).map(|pass| mix(config.train.seed, &[0, pass]) as i64).collect();
    tensors.push(("seeds".into(), Tensor::from_slice(&seeds)));
    ldm_checkpoint::save(out, &tensors, &BTreeMap::new())
}
