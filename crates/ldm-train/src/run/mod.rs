//! Training runs: the trainer, its events, and the run directory.

pub(crate) mod build;
pub(crate) mod checkpoints;
pub(crate) mod event;
pub(crate) mod event_file;
pub(crate) mod launch;
pub(crate) mod meter;
pub(crate) mod non_finite_guard;
pub(crate) mod retention;
pub(crate) mod run_dir;
pub(crate) mod state;
pub(crate) mod trainer;
