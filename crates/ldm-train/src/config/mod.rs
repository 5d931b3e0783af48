//! Configuration of a training run.

mod paths;
mod run_config;

pub use run_config::{DataConfig, DataModule, Dtype, RunConfig, SampleConfig, TrainConfig};
