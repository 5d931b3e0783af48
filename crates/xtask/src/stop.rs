//! Ctrl-C while installing: stop, tidy up, leave.

use std::fmt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

const PAUSE: Duration = Duration::from_millis(50);

/// Set by the signals that ask a program to end.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From here on the first such signal sets the flag, and a second one ends the program at once.
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Self(Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop.0))
                .and_then(|_| flag::register(signal, Arc::clone(&stop.0)))
                .context("cannot listen to signals")?;
        }
        Ok(stop)
    }

    /// Waits a moment.
    pub(crate) fn pause(&self) -> Result<()> {
        self.check()?;
        thread::sleep(PAUSE);
        self.check()
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Waits for the child, calling `tick` at each look; ends it when the user wants to stop.
    pub(crate) fn wait(&self, child: &mut Child, mut tick: impl FnMut()) -> Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait()? {
                // A Ctrl-C reaches the child too, which may be the first to end.
                self.check()?;
                return Ok(status);
            }
            if let Err(interrupted) = self.pause() {
                child.kill()?;
                child.wait()?;
                return Err(interrupted);
            }
            tick();
        }
    }
}

/// The user asked to stop.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted: nothing half-made is left")
    }
}

impl std::error::Error for Interrupted {}
