//! What a run tells those who watch it.

use std::collections::BTreeMap;
use std::path::Path;

/// What a caller may want to show.
#[derive(Debug)]
pub enum Event<'a> {
    /// Latents are being made, to be kept.
    Caching {
        /// Images encoded so far.
        done: usize,
        /// Images to be encoded.
        of: usize,
    },
    /// A step was taken.
    Step {
        /// Steps taken, this one included.
        step: u64,
        /// Steps in all.
        steps: u64,
    },
    /// A line of `metrics.jsonl`: means since the last one.
    Logged(&'a BTreeMap<String, f64>),
    /// A validation's numbers.
    Validated(&'a BTreeMap<String, f64>),
    /// A checkpoint is whole.
    Checkpoint(&'a Path),
    /// An image was written.
    Sample(&'a Path),
    /// What a person may want to know of the run, once.
    Note(&'a str),
    /// An image could not be read and is left out.
    Skipped(&'a str),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// All steps are taken.
    Done,
    /// The caller asked it to stop; a checkpoint holds where.
    Stopped,
}
