//! Configuration of a training run.

mod data_module;
mod data_section;
mod paths;
mod run_config;
mod train_config;

pub use data_module::{DataConfig, DataModule};
pub use run_config::RunConfig;
pub use train_config::{Dtype, SampleConfig, TrainConfig};
