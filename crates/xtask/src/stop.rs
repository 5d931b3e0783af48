//! Signals during installation: stop and clean up.

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

/// A flag set by the signals that end a program.
#[derive(Debug, Clone)]
pub(crate) struct StopSignal(Arc<AtomicBool>);

impl StopSignal {
    /// Installs handlers: the first signal sets the flag, a second one ends the program at once.
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Self(Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop.0))
                .and_then(|_| flag::register(signal, Arc::clone(&stop.0)))
                .context("cannot install signal handlers")?;
        }
        Ok(stop)
    }

    /// Waits briefly.
    pub(crate) fn pause(&self) -> Result<()> {
        self.check()?;
        thread::sleep(PAUSE);
        self.check()
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(SetupInterrupted.into()) } else { Ok(()) }
    }

    /// Waits for the child, calling `tick` regularly; kills it after a signal.
    pub(crate) fn wait(&self, child: &mut Child, mut tick: impl FnMut()) -> Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait()? {
                // Ctrl-C reaches the child too, which may end first.
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

/// The error after a signal.
#[derive(Debug)]
pub(crate) struct SetupInterrupted;

impl fmt::Display for SetupInterrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted: partial files were removed")
    }
}

impl std::error::Error for SetupInterrupted {}
