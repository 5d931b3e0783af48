//! Handlers of signals.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Context;
use ldm_train::Launcher;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::terminal::say;

/// The signals that end the program. SIGHUP, of a closed terminal, only if it was not ignored from the start, as under
/// `nohup`.
fn ending() -> Vec<i32> {
    let hangup = (!ldm_core::signals::is_ignored(SIGHUP)).then_some(SIGHUP);
    [SIGINT, SIGTERM].into_iter().chain(hangup).collect()
}

/// Makes signals end the program with exit code 129, 130 or 143, at once unless a file is being written.
pub(crate) fn exit_on_signals() -> anyhow::Result<()> {
    let mut signals = Signals::new(ending()).context("signals")?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            end(signal);
        }
    });
    Ok(())
}

/// Longest wait for a file that is being written: a disk that does not answer must not keep the program.
const PATIENCE: Duration = Duration::from_secs(10);

/// Exits without destructors: those of libtorch would run while its worker threads do.
fn end(signal: i32) -> ! {
    std::thread::spawn(move || {
        std::thread::sleep(PATIENCE);
        signal_hook::low_level::exit(128 + signal)
    });
    let _idle = ldm_core::files::when_idle();
    let _ = std::io::stdout().flush();
    signal_hook::low_level::exit(128 + signal)
}

/// A flag set by the first signal, for graceful stops; the second signal exits at once. And a flag set by SIGUSR1, which
/// asks for a checkpoint.
#[derive(Debug)]
pub(crate) struct Stop {
    flag: Arc<AtomicBool>,
    code: Arc<AtomicU8>,
    checkpoint: Arc<AtomicBool>,
}

impl Stop {
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let stop = Self { flag: Arc::default(), code: Arc::default(), checkpoint: Arc::default() };
        let mut signals = Signals::new(ending()).context("signals")?;
        signals.add_signal(SIGUSR1).context("signals")?;
        let (flag, code) = (Arc::clone(&stop.flag), Arc::clone(&stop.code));
        let checkpoint = Arc::clone(&stop.checkpoint);
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if signal == SIGUSR1 {
                    checkpoint.store(true, Ordering::SeqCst);
                    say_if_late("writing a checkpoint after the current step", Arc::clone(&checkpoint));
                    continue;
                }
                code.store(128 + signal as u8, Ordering::SeqCst);
                if flag.swap(true, Ordering::SeqCst) {
                    end(signal);
                }
                if !Launcher::is_launched() {
                    say_if_late(STOPPING, Arc::clone(&flag));
                }
            }
        });
        Ok(stop)
    }

    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// Returns the flag that asks for a checkpoint.
    pub(crate) fn checkpoint(&self) -> &Arc<AtomicBool> {
        &self.checkpoint
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

const STOPPING: &str =
    "stopping after the current step; a second signal stops at once, at the last checkpoint";

/// Says what is about to happen if `flag` still asks for it after a second. A launcher clears that of a checkpoint when it
/// forwards the signal.
fn say_if_late(text: &'static str, flag: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        if flag.load(Ordering::SeqCst) {
            say(text);
        }
    });
}
