//! Child processes of a training program, which end together with it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ldm_core::{Error, Result};
use ldm_libtorch::RankEnv;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};

/// Time for the other ranks to report a lost connection and to finish writing.
const GRACE: Duration = Duration::from_secs(50);
/// Time between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts child processes and waits for them: the ranks of a run, or one part of the work. Signals are forwarded to them.
pub struct Launcher<'a> {
    /// Returns the signal that the program received, once it should end.
    pub signal: &'a dyn Fn() -> Option<i32>,
    /// Set when a checkpoint is asked for.
    pub checkpoint: &'a AtomicBool,
    /// Prints a line of a child's stderr, or about a child.
    pub say: fn(&str),
}

impl Launcher<'_> {
    /// The variable set for child processes, whose standard input closes when their launcher ends.
    const LAUNCHED: &'static str = "LDM_LAUNCHED";

    /// Returns true in a child process of a launcher.
    pub fn is_launched() -> bool {
        std::env::var_os(Self::LAUNCHED).is_some()
    }

    /// Starts `count` ranks of this program with its own arguments, and waits for their exit. A failed rank ends all.
    /// `started` is called with the port of their rendezvous. Returns the first rank that failed.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a rank cannot be started.
    pub fn run_ranks(
        &self,
        count: usize,
        started: &mut dyn FnMut(u16),
    ) -> Result<Option<(usize, ExitStatus)>> {
        let store = Rendezvous::bind().map_err(|error| {
            Error::invalid(format!("no free port for the rendezvous of the ranks: {error}"))
        })?;
        let port = store.port;
        let (mut ranks, mut forwarders) = (RunningRanks(Vec::new()), Vec::new());
        for rank in 0..count {
            let (child, stderr) = self
                .start(rank, count, &store)
                .map_err(|error| Error::invalid(format!("cannot start rank {rank}: {error}")))?;
            ranks.0.push(Some(child));
            forwarders.extend(stderr);
        }
        drop(store);
        started(port);
        let (mut failed, mut signaled) = (None::<(usize, ExitStatus, Instant)>, false);
        while ranks.0.iter().any(Option::is_some) {
            for rank in 0..count {
                let Some(status) = ranks.poll(rank)? else { continue };
                if !status.success() && failed.is_none() {
                    failed = Some((rank, status, Instant::now()));
                    if (self.signal)().is_none() {
                        (self.say)(&format!("rank {rank} {}; stopping the other ranks", exit_text(status)));
                    }
                }
            }
            if let (Some(signal), false) = ((self.signal)(), signaled) {
                signaled = true;
                ranks.signal(Signal::from_named_raw(signal).unwrap_or(Signal::TERM));
            }
            // Rank 0 alone, which shares it with the others.
            if let Some(Some(first)) = ranks.0.first()
                && self.checkpoint.swap(false, Ordering::SeqCst)
            {
                let _ = kill_process(Pid::from_child(first), Signal::USR1); // it may have just ended
            }
            if failed.is_some_and(|(.., since)| since.elapsed() > GRACE) {
                ranks.signal(Signal::KILL);
            }
            std::thread::sleep(PAUSE);
        }
        for thread in forwarders {
            let _ = thread.join();
        }
        Ok(failed.map(|(rank, status, _)| (rank, status)))
    }

    /// Runs a command in its own process group, and waits for its exit.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it cannot be started.
    pub fn run(&self, mut command: Command) -> Result<ExitStatus> {
        command.env(Self::LAUNCHED, "1").stdin(Stdio::piped()).process_group(0);
        let failed = |error| Error::invalid(format!("cannot start a child process: {error}"));
        let mut child = command.spawn().map_err(failed)?;
        let mut signaled = false;
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status);
            }
            if let (Some(signal), false) = ((self.signal)(), signaled) {
                signaled = true;
                let signal = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
                let _ = kill_process(Pid::from_child(&child), signal); // it may have just ended
            }
            if self.checkpoint.swap(false, Ordering::SeqCst) {
                let _ = kill_process(Pid::from_child(&child), Signal::USR1);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Starts a rank, and a thread that forwards its stderr.
    fn start(
        &self,
        rank: usize,
        count: usize,
        store: &Rendezvous,
    ) -> std::io::Result<(Child, Option<JoinHandle<()>>)> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(std::env::args_os().skip(1))
            .envs(
                [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", count), ("LOCAL_WORLD_SIZE", count)]
                    .map(|(name, value)| (name, value.to_string())),
            )
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", store.port.to_string())
            .env(Self::LAUNCHED, "1")
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
        let say = self.say;
        let forwarder = std::thread::spawn(move || {
            // A path in it need not be UTF-8.
            for line in BufReader::new(stderr).split(b'\n').map_while(std::io::Result::ok) {
                say(&format!("[rank {rank}] {}", String::from_utf8_lossy(&line)));
            }
        });
        Ok((child, Some(forwarder)))
    }
}

/// The running ranks.
struct RunningRanks(Vec<Option<Child>>);

impl RunningRanks {
    /// Returns the exit status of a rank that has ended since the last call.
    fn poll(&mut self, rank: usize) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.0[rank] else { return Ok(None) };
        let status = child.try_wait().map_err(|error| Error::invalid(format!("rank {rank}: {error}")))?;
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

/// Describes an exit status.
pub fn exit_text(status: ExitStatus) -> String {
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
