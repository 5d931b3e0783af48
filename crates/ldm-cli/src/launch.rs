//! Child processes of this program: parts of a study, and the ranks of `ldm train --nproc N`, which end together.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ldm_libtorch::RankEnv;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};

use crate::interrupt::Stop;
use crate::progress::Printer;
use crate::report::Interrupted;
use crate::terminal::say;

/// Time for the other ranks to report a lost connection and to finish writing.
const GRACE: Duration = Duration::from_secs(50);
/// Set for child processes, whose standard input closes when their launcher ends.
const LAUNCHED: &str = "LDM_LAUNCHED";

/// Starts `count` ranks and waits for their exit. A failed rank ends all; a signal is forwarded to all.
pub(crate) fn launch(count: usize, stop: &Stop, printer: Printer) -> anyhow::Result<()> {
    let store = Rendezvous::bind().context("no free port for the rendezvous of the ranks")?;
    let port = store.port;
    let (mut ranks, mut forwarders) = (RunningRanks(Vec::new()), Vec::new());
    for rank in 0..count {
        let (child, stderr) =
            start(rank, count, &store).with_context(|| format!("cannot start rank {rank}"))?;
        ranks.0.push(Some(child));
        forwarders.extend(stderr);
    }
    drop(store);
    printer.detail(&format!("rendezvous of {count} ranks at 127.0.0.1:{port}"));
    let (mut failed, mut signaled) = (None::<(usize, ExitStatus, Instant)>, false);
    while ranks.0.iter().any(Option::is_some) {
        for rank in 0..count {
            let Some(status) = ranks.poll(rank)? else { continue };
            if !status.success() && failed.is_none() {
                failed = Some((rank, status, Instant::now()));
                if stop.signal().is_none() {
                    printer.say(&format!("rank {rank} {}; stopping the other ranks", exit_text(status)));
                }
            }
        }
        if let (Some(signal), false) = (stop.signal(), signaled) {
            signaled = true;
            ranks.signal(Signal::from_named_raw(signal).unwrap_or(Signal::TERM));
        }
        // Rank 0 alone, which shares it with the others.
        if let Some(Some(first)) = ranks.0.first()
            && stop.checkpoint().swap(false, Ordering::SeqCst)
        {
            let _ = kill_process(Pid::from_child(first), Signal::USR1); // it may have just ended
        }
        if failed.is_some_and(|(.., since)| since.elapsed() > GRACE) {
            ranks.signal(Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for thread in forwarders {
        let _ = thread.join();
    }
    match failed {
        None => Ok(()),
        Some(_) if stop.signal().is_some() => Err(Interrupted(stop.code()).into()),
        Some((rank, status, _)) => bail!("rank {rank} {}", exit_text(status)),
    }
}

/// A child process.
pub(crate) struct ChildProcess(Child);

impl ChildProcess {
    /// Starts the process, in its own process group: the launcher forwards Ctrl-C.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        command.env(LAUNCHED, "1").stdin(Stdio::piped()).process_group(0);
        Ok(Self(command.spawn().context("cannot start a child process")?))
    }

    /// Waits for its exit, and forwards a signal.
    pub(crate) fn wait(mut self, stop: &Stop) -> anyhow::Result<ExitStatus> {
        let mut signaled = false;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if let (Some(signal), false) = (stop.signal(), signaled) {
                signaled = true;
                let signal = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
                // The process may have just ended.
                let _ = kill_process(Pid::from_child(&self.0), signal);
            }
            if stop.checkpoint().swap(false, Ordering::SeqCst) {
                let _ = kill_process(Pid::from_child(&self.0), Signal::USR1);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The running ranks.
struct RunningRanks(Vec<Option<Child>>);

impl RunningRanks {
    /// Returns the exit status of a rank that has ended since the last call.
    fn poll(&mut self, rank: usize) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.0[rank] else { return Ok(None) };
        let status = child.try_wait().with_context(|| format!("rank {rank}"))?;
        if status.is_some() {
            self.0[rank] = None;
        }
        Ok(status)
    }

    fn signal(&self, signal: Signal) {
        for child in self.0.iter().flatten() {
            // The process may have just ended.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }
}

impl Drop for RunningRanks {
    /// Kills all ranks if the launch itself fails.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Starts a rank, and a thread that forwards its stderr.
fn start(rank: usize, count: usize, store: &Rendezvous) -> anyhow::Result<(Child, Option<JoinHandle<()>>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1))
        .envs(
            [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", count), ("LOCAL_WORLD_SIZE", count)]
                .map(|(name, value)| (name, value.to_string())),
        )
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", store.port.to_string())
        .env(LAUNCHED, "1")
        .stdin(Stdio::piped())
        // The launcher forwards the terminal's Ctrl-C once.
        .process_group(0);
    if std::env::var_os("TORCH_CPP_LOG_LEVEL").is_none() {
        // Else c10d warns of a broken connection before the rank reports it.
        command.env("TORCH_CPP_LOG_LEVEL", "ERROR");
    }
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.env("OMP_NUM_THREADS", (cores / count).max(1).to_string());
    }
    if rank == 0 {
        command.env(RankEnv::LISTEN_FD, store.listener.as_raw_fd().to_string());
        // Inherited by rank 0 alone, which is started first.
        fcntl_setfd(&store.listener, FdFlags::empty())?;
        let child = command.spawn();
        fcntl_setfd(&store.listener, FdFlags::CLOEXEC)?;
        return Ok((child?, None));
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().expect("stderr is piped");
    let forwarder = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            say(&format!("[rank {rank}] {line}"));
        }
    });
    Ok((child, Some(forwarder)))
}

/// True for a child process of [`launch`] or [`ChildProcess`].
pub(crate) fn is_launched() -> bool {
    std::env::var_os(LAUNCHED).is_some()
}

/// Exits when the launcher ends, even if it was killed.
pub(crate) fn exit_with_launcher() {
    if !is_launched() {
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

/// Describes an exit status.
pub(crate) fn exit_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// The socket of the ranks' rendezvous: bound to this machine's loopback before a rank starts, so that no other process
/// can take its port and no other machine can reach it.
struct Rendezvous {
    listener: TcpListener,
    port: u16,
}

impl Rendezvous {
    fn bind() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }
}
