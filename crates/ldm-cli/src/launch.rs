//! Child processes of this program: parts of a study, and the ranks of `ldm train --nproc N`.

use std::io::Read;
use std::process::{Command, ExitStatus};

use anyhow::bail;
use ldm_train::{Launcher, exit_text};

use crate::interrupt::Stop;
use crate::progress::Printer;
use crate::report::Interrupted;
use crate::terminal::say;

/// Starts `count` ranks and waits for their exit. A failed rank ends all; a signal is forwarded to all.
pub(crate) fn launch(count: usize, stop: &Stop, printer: Printer) -> anyhow::Result<()> {
    let launcher = Launcher { signal: &|| stop.signal(), checkpoint: stop.checkpoint(), say };
    let mut started = |port| printer.detail(&format!("rendezvous of {count} ranks at 127.0.0.1:{port}"));
    match launcher.run_ranks(count, &mut started)? {
        None => Ok(()),
        Some(_) if stop.signal().is_some() => Err(Interrupted(stop.code()).into()),
        Some((rank, status)) => bail!("rank {rank} {}", exit_text(status)),
    }
}

/// Runs a command as a child process, and forwards a signal.
pub(crate) fn run(command: Command, stop: &Stop) -> anyhow::Result<ExitStatus> {
    Ok(Launcher { signal: &|| stop.signal(), checkpoint: stop.checkpoint(), say }.run(command)?)
}

/// Exits when the launcher ends, even if it was killed.
pub(crate) fn exit_with_launcher() {
    if !Launcher::is_launched() {
        return;
    }
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        say("error: the launcher has ended");
        let _idle = ldm_core::files::when_idle();
        // Without destructors: those of libtorch would run while its worker threads do.
        signal_hook::low_level::exit(1);
    });
}
