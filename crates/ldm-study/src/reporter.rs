//! Messages and progress.

use std::sync::atomic::AtomicBool;

use ldm_core::Result;
use ldm_train::{Event, Finished, Trainer};

/// Receiver of messages and progress; every method has a silent default.
pub trait Reporter {
    /// Receives a message.
    fn say(&self, _text: &str) {}

    /// Receives a warning.
    fn warn(&self, _text: &str) {}

    /// Receives progress: `done` of `total` images are processed.
    fn progress(&self, _done: u64, _total: u64) {}

    /// Receives the end of the progress of a set.
    fn progress_end(&self) {}

    /// Runs `trainer` until its end or until `stop` is set, and calls `observe` before it shows an event itself.
    ///
    /// # Errors
    /// As [`Trainer::run`].
    fn train(
        &self,
        trainer: &mut Trainer,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(&Event),
    ) -> Result<Finished> {
        trainer.run(stop, &mut |event| observe(&event))
    }
}

/// A [`Reporter`] that shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Reporter for Silent {}
