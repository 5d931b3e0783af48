//! A reporter of studies that prints.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ldm_study::Reporter;
use ldm_train::{Event, Finished, Trainer};

use crate::commands::train;
use crate::interrupt::Stop;
use crate::progress::{Printer, Progress};

/// Shows the messages and the progress of a study.
pub(crate) struct CliReporter {
    printer: Printer,
    bar: RefCell<Option<Progress>>,
    /// Asks a training for a checkpoint.
    checkpoint: Arc<AtomicBool>,
}

impl CliReporter {
    pub(crate) fn new(printer: Printer) -> Self {
        Self { printer, bar: RefCell::default(), checkpoint: Arc::default() }
    }

    /// A reporter whose trainings write a checkpoint on SIGUSR1.
    pub(crate) fn on_signals(printer: Printer, stop: &Stop) -> Self {
        Self { checkpoint: Arc::clone(stop.checkpoint()), ..Self::new(printer) }
    }
}

impl Reporter for CliReporter {
    fn say(&self, text: &str) {
        self.printer.say(text);
    }

    fn warn(&self, text: &str) {
        Printer::warn(text);
    }

    fn progress(&self, done: u64, total: u64) {
        self.bar.borrow_mut().get_or_insert_with(|| self.printer.bar(total, 0)).at(done);
    }

    fn progress_end(&self) {
        self.bar.take().into_iter().for_each(Progress::finish);
    }

    fn train(
        &self,
        trainer: &mut Trainer,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(&Event),
    ) -> ldm_core::Result<Finished> {
        trainer.checkpoint_on(Arc::clone(&self.checkpoint));
        train::train_and(trainer, stop, self.printer, observe).map_err(|error| {
            error.downcast().unwrap_or_else(|error| ldm_core::Error::invalid(error.to_string()))
        })
    }
}
