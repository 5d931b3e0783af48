//! Configs and schedules inferred from the names, shapes and buffers of a checkpoint.

mod model;
pub(crate) mod names;
pub(crate) mod schedule;

pub(crate) use model::infer_config;
