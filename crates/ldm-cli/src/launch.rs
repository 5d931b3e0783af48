//! This program started again by itself: as a part of its own work, or (`ldm train --nproc N`) as the ranks of this machine,
//! which end together.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::interrupt::Stop;
use crate::progress::Printer;
use crate::report::{Interrupted, say};

/// How long the others may take to say what they lost, or to end what they write.
const GRACE: Duration = Duration::from_secs(50);
/// Set for those whose standard input ends when their launcher does.
const LAUNCHED: &str = "LDM_LAUNCHED";

/// Starts `count` ranks and waits for their end. A rank that fails ends all; a signal is passed on to all.
pub(crate) fn launch(count: usize, stop: &Stop, printer: Printer) -> anyhow::Result<()> {
    let port = free_port().context("no free port for the ranks to meet at")?;
    let (mut ranks, mut passing_on) = (Ranks(Vec::new()), Vec::new());
    for rank in 0..count {
        let (child, stderr) =
            start(rank, count, port).with_context(|| format!("cannot start rank {rank}"))?;
        ranks.0.push(Some(child));
        passing_on.extend(stderr);
    }
    printer.detail(&format!("{count} ranks meet at 127.0.0.1:{port}"));
    let (mut failed, mut told) = (None::<(usize, ExitStatus, Instant)>, false);
    while ranks.0.iter().any(Option::is_some) {
        for rank in 0..count {
            let Some(status) = ranks.ended(rank)? else { continue };
            if !status.success() && failed.is_none() {
                failed = Some((rank, status, Instant::now()));
                if stop.signal().is_none() {
                    printer.say(&format!("rank {rank} {}; the others end too", how(status)));
                }
            }
        }
        if let (Some(signal), false) = (stop.signal(), told) {
            told = true;
            ranks.signal(Signal::from_named_raw(signal).unwrap_or(Signal::TERM));
        }
        if failed.is_some_and(|(.., since)| since.elapsed() > GRACE) {
            ranks.signal(Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for thread in passing_on {
        let _ = thread.join();
    }
    match failed {
        None => Ok(()),
        Some(_) if stop.signal().is_some() => Err(Interrupted(stop.code()).into()),
        Some((rank, status, _)) => bail!("rank {rank} {}", how(status)),
    }
}

/// This program again, for a part of its own work.
pub(crate) struct Part(Child);

impl Part {
    /// Its standard input is a pipe that nobody writes to; the terminal's Ctrl-C comes to the launcher, which passes it on.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        command.env(LAUNCHED, "1").stdin(Stdio::piped()).process_group(0);
        Ok(Self(command.spawn().context("cannot start this program again")?))
    }

    /// Until its end; a signal is passed on.
    pub(crate) fn wait(mut self, stop: &Stop) -> anyhow::Result<ExitStatus> {
        let mut told = false;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if let (Some(signal), false) = (stop.signal(), told) {
                told = true;
                let signal = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
                // One that has just ended is not there any more.
                let _ = kill_process(Pid::from_child(&self.0), signal);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The ranks that still run.
struct Ranks(Vec<Option<Child>>);

impl Ranks {
    /// How a rank ended, once.
    fn ended(&mut self, rank: usize) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.0[rank] else { return Ok(None) };
        let status = child.try_wait().with_context(|| format!("rank {rank}"))?;
        if status.is_some() {
            self.0[rank] = None;
        }
        Ok(status)
    }

    fn signal(&self, signal: Signal) {
        for child in self.0.iter().flatten() {
            // One that has just ended is not there any more.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

impl Drop for Ranks {
    /// Nothing is left behind when the launch itself fails.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// This program again, told which rank it is, and what passes on its words. Its standard input is a pipe that nobody
/// writes to.
fn start(rank: usize, count: usize, port: u16) -> anyhow::Result<(Child, Option<JoinHandle<()>>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1))
        .envs(
            [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", count), ("LOCAL_WORLD_SIZE", count)]
                .map(|(name, value)| (name, value.to_string())),
        )
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string())
        .env(LAUNCHED, "1")
        .stdin(Stdio::piped())
        // The terminal's Ctrl-C comes to the launcher, which passes it on once.
        .process_group(0);
    if std::env::var_os("TORCH_CPP_LOG_LEVEL").is_none() {
        // Of a connection that broke, c10d warns in its own words before the rank says it in ours.
        command.env("TORCH_CPP_LOG_LEVEL", "ERROR");
    }
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.env("OMP_NUM_THREADS", (cores / count).max(1).to_string());
    }
    if rank == 0 {
        return Ok((command.spawn()?, None));
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().expect("a pipe was asked for");
    let passing_on = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            say(&format!("[rank {rank}] {line}"));
        }
    });
    Ok((child, Some(passing_on)))
}

/// Who was started here ends when its launcher is no more, also where that could not say so.
pub(crate) fn end_with_the_launcher() {
    if std::env::var_os(LAUNCHED).is_none() {
        return;
    }
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        // Where the launcher passed this rank's words on, nobody hears them now.
        say("error: the launcher is gone");
        let _idle = ldm_core::files::when_idle();
        std::process::exit(1);
    });
}

/// How a process ended, in words.
pub(crate) fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
