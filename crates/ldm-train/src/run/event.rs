//! Events of a run.

use std::collections::BTreeMap;
use std::path::Path;

/// An event of a run, for progress bars and logs.
#[derive(Debug)]
pub enum Event<'a> {
    /// Images were encoded into the latent cache.
    Caching {
        /// Images encoded so far.
        done: usize,
        /// Images in total.
        of: usize,
    },
    /// A step was taken.
    Step {
        /// Steps taken, this one included.
        step: u64,
        /// Steps in total.
        steps: u64,
    },
    /// A line of `metrics.jsonl`: means since the last one.
    Logged(&'a BTreeMap<String, f64>),
    /// Validation metrics.
    Validated(&'a BTreeMap<String, f64>),
    /// A checkpoint was written.
    Checkpoint(&'a Path),
    /// A preview image was written.
    Sample(&'a Path),
    /// A note for the user, shown once.
    Note(&'a str),
    /// An unreadable image was skipped, with its error message.
    Skipped(&'a str),
}

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// All steps are taken.
    Done,
    /// Stopped by the caller, after writing a checkpoint to resume from.
    Stopped,
}
