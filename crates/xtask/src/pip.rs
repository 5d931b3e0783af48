//! Runs pip, and turns what it says into one sentence.

use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::libtorch::{Set, VERSION};
use crate::stop::Stop;

/// Installs the wheels of a set into `target`; `scratch` takes the downloads, and `log` all that pip says.
pub(crate) fn install(set: Set, target: &Path, scratch: &Path, log: &Path, stop: &Stop) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--no-cache-dir",
        "--no-compile",
        "--no-input",
        "--progress-bar",
        "off",
    ])
    .args(["--disable-pip-version-check", "--only-binary", ":all:", "--target"])
    .arg(target)
    .args(wheels(set))
    .env("TMPDIR", scratch)
    // A user's own settings of these would not go together with --target.
    .env("PIP_USER", "0")
    .env("PIP_REQUIRE_VIRTUALENV", "0")
    .env_remove("PIP_TARGET")
    .env_remove("PIP_PREFIX")
    .env_remove("PIP_ROOT");
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = output.try_clone().context("cannot write pip's log")?;
    let mut child =
        pip.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().context("python3 does not start")?;
    let mut progress = Progress::new(target, scratch);
    let status = stop.wait(&mut child, || progress.tick());
    progress.end();
    if status.as_ref().is_ok_and(|status| !status.success()) {
        let said = fs::read(log).unwrap_or_default();
        bail!("{}", sentence(&String::from_utf8_lossy(&said), set, log));
    }
    // Of no use after a success, nor where the user stopped it.
    fs::remove_file(log).context("cannot remove pip's log")?;
    status.map(|_| ())
}

/// The wheel links to CUDA's runtime and to CUPTI even where only its CPU half is kept. For its CUDA half it brings
/// NCCL and most of CUDA's headers, but not two that these include: ldm's training on several GPUs is compiled with
/// them.
fn wheels(set: Set) -> Vec<String> {
    let torch = format!("torch=={VERSION}");
    match set {
        Set::Cuda => [&torch, "nvidia-cuda-crt==13.0.*", "nvidia-cuda-cccl==13.0.*"].map(String::from).into(),
        Set::Cpu => ["--no-deps", &torch, "nvidia-cuda-runtime==13.0.*", "nvidia-cuda-cupti==13.0.*"]
            .map(String::from)
            .into(),
    }
}

/// What to do about a failed pip.
fn sentence(said: &str, set: Set, log: &Path) -> String {
    let log = log.display();
    let says = |marks: &[&str]| marks.iter().any(|mark| said.contains(mark));
    if says(&["No space left on device", "Errno 28", "Disk quota exceeded"]) {
        let (need, title) = (crate::cache::needed_gb(set), set.title());
        return format!(
            "the disk is full: libtorch for {title} needs {need} GB while it is installed; make room or set \
             XDG_CACHE_HOME to a folder on a larger disk (pip's output: {log})"
        );
    }
    if says(&["CERTIFICATE_VERIFY_FAILED", "SSLError"]) {
        return format!(
            "pip does not trust the package index's certificate: set PIP_CERT to the certificate of your network \
             and try again (pip's output: {log})"
        );
    }
    if says(&[
        "NewConnectionError",
        "Failed to establish a new connection",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "Read timed out",
        "NameResolutionError",
        "Temporary failure in name resolution",
        "ProxyError",
        "Connection aborted",
        "Connection reset",
        "ConnectionError",
        "IncompleteRead",
        "ProtocolError",
    ]) {
        return format!(
            "there is no way to the package index: check the network and the proxy, then try again (pip's output: \
             {log})"
        );
    }
    if says(&["No matching distribution found", "Could not find a version that satisfies"]) {
        return format!(
            "pip finds no wheel of torch {VERSION} for this python3 and machine: use Python 3.10 to 3.14 on x86_64 \
             with a current pip, or set LIBTORCH to a libtorch {VERSION} (pip's output: {log})"
        );
    }
    format!("pip cannot install torch {VERSION}: see its output in {log}")
}

/// A line on the terminal that says how much has come.
struct Progress<'a> {
    folders: [&'a Path; 2],
    start: Instant,
    last: Instant,
    shown: bool,
}

impl<'a> Progress<'a> {
    fn new(target: &'a Path, scratch: &'a Path) -> Self {
        let now = Instant::now();
        Self { folders: [target, scratch], start: now, last: now, shown: false }
    }

    fn tick(&mut self) {
        if self.last.elapsed() < Duration::from_secs(1) || !std::io::stderr().is_terminal() {
            return;
        }
        let bytes: u64 = self.folders.iter().map(|folder| size(folder)).sum();
        eprint!("\r  {} MB on disk, {} s ", bytes / 1_000_000, self.start.elapsed().as_secs());
        self.last = Instant::now();
        self.shown = true;
    }

    fn end(&self) {
        if self.shown {
            eprintln!();
        }
    }
}

/// Bytes in a folder that someone is writing to: what vanishes meanwhile counts nothing.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let entry_size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.flatten().map(entry_size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(said: &str, expected: &str) {
        let found = sentence(said, Set::Cpu, Path::new("/c/log"));
        assert!(found.starts_with(expected), "{found}");
        assert!(found.contains("/c/log"), "{found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }

    #[test]
    fn each_failure_of_pip_has_its_sentence() {
        check(
            "WARNING: Retrying (Retry(total=0, ...)) after connection broken by 'NewConnectionError('<...>: Failed \
             to establish a new connection: [Errno -3] Temporary failure in name resolution')': /simple/torch/\n\
             ERROR: Could not find a version that satisfies the requirement torch==2.11.0 (from versions: none)\n\
             ERROR: No matching distribution found for torch==2.11.0",
            "there is no way to the package index",
        );
        check(
            "ERROR: Could not find a version that satisfies the requirement torch==2.11.0 (from versions: 2.4.1)\n\
             ERROR: No matching distribution found for torch==2.11.0",
            "pip finds no wheel",
        );
        check(
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "the disk is full: libtorch for CPU needs 3 GB",
        );
        check(
            "... SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]",
            "pip does not trust",
        );
        check("Segmentation fault", "pip cannot install torch");
    }
}
