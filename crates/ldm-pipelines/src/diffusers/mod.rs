//! diffusers' model folders: `model_index.json`, components and `scheduler_config.json`.

pub(crate) mod component;
pub(crate) mod folder;
mod sampler;
pub(crate) mod scheduler;

pub use scheduler::{DiffusersScheduler, Thresholding};
