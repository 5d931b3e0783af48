//! Handlers of Ctrl-C and SIGTERM.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Makes signals end the program with exit code 130 or 143, at once unless a file is being written.
pub(crate) fn exit_on_signals() -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals")?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            end(signal);
        }
    });
    Ok(())
}

/// Exits without destructors: those of libtorch would run while its worker threads do.
fn end(signal: i32) -> ! {
    let _idle = ldm_core::files::when_idle();
    let _ = std::io::stdout().flush();
    signal_hook::low_level::exit(128 + signal)
}

/// A flag set by the first signal, for graceful stops; the second signal exits at once.
#[derive(Debug)]
pub(crate) struct Stop {
    flag: Arc<AtomicBool>,
    code: Arc<AtomicU8>,
}

impl Stop {
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let stop = Self { flag: Arc::default(), code: Arc::default() };
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals")?;
        let (flag, code) = (Arc::clone(&stop.flag), Arc::clone(&stop.code));
        std::thread::spawn(move || {
            for signal in signals.forever() {
                code.store(128 + signal as u8, Ordering::SeqCst);
                if flag.swap(true, Ordering::SeqCst) {
                    end(signal);
                }
            }
        });
        Ok(stop)
    }

    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// Returns the signal received.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.code().checked_sub(128).map(i32::from)
    }

    /// Returns the exit code of the signal received.
    pub(crate) fn code(&self) -> u8 {
        self.code.load(Ordering::SeqCst)
    }
}
