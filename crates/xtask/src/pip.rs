//! Running pip, with one error message per kind of failure.

use std::fs::{self, File};
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::libtorch::{VERSION, Variant};
use crate::stop::StopSignal;

/// Installs the wheels of a variant into `target`; downloads go to `scratch`, pip's output to `log`.
pub(crate) fn install(
    set: Variant,
    target: &Path,
    scratch: &Path,
    log: &Path,
    stop: &StopSignal,
) -> Result<()> {
    let required = scratch.join("libtorch.txt");
    fs::write(&required, wheels(set)).with_context(|| format!("cannot write {}", required.display()))?;
    let mut pip = Command::new("python3");
    // -I: a `pip.py` in the current folder must not run.
    pip.args([
        "-I",
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
    // libtorch is code: another index may not replace a wheel.
    .args(["--no-deps", "--require-hashes", "-r"])
    .arg(&required)
    .env("TMPDIR", scratch)
    // User settings that conflict with --target.
    .env("PIP_USER", "0")
    .env("PIP_REQUIRE_VIRTUALENV", "0")
    .env_remove("PIP_TARGET")
    .env_remove("PIP_PREFIX")
    .env_remove("PIP_ROOT");
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = output.try_clone().context("cannot write pip's log")?;
    let mut child =
        pip.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().context("python3 does not start")?;
    let mut progress = PipProgress::new(target, scratch);
    let status = stop.wait(&mut child, || progress.tick());
    progress.end();
    if status.as_ref().is_ok_and(|status| !status.success()) {
        let output = fs::read(log).unwrap_or_default();
        bail!("{}", explain(&String::from_utf8_lossy(&output), set, log));
    }
    // Not needed after success or an interruption.
    fs::remove_file(log).context("cannot remove pip's log")?;
    status.map(|_| ())
}

/// Returns the wheels of a variant, as a requirements file of pip with the hash of each.
fn wheels(set: Variant) -> &'static str {
    match set {
        Variant::Cpu => include_str!("../libtorch-cpu.txt"),
        Variant::Cuda => include_str!("../libtorch-cuda.txt"),
    }
}

/// Explains a failure of pip and its remedy.
fn explain(output: &str, set: Variant, log: &Path) -> String {
    let log = log.display();
    let reports = |marks: &[&str]| marks.iter().any(|mark| output.contains(mark));
    if reports(&["No space left on device", "Errno 28", "Disk quota exceeded"]) {
        let (need, title) = (crate::cache::needed_gb(set), set.title());
        return format!(
            "disk: expected {need} GB free to install libtorch for {title}, got a full disk; try setting \
             XDG_CACHE_HOME to a folder on a larger disk (pip's output: {log})"
        );
    }
    if reports(&["CERTIFICATE_VERIFY_FAILED", "SSLError"]) {
        return format!(
            "pip: expected a trusted certificate of the package index; try setting PIP_CERT to the certificate of your \
             network (pip's output: {log})"
        );
    }
    if reports(&[
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
            "pip: cannot reach the package index; try again after checking the network and the proxy (pip's output: \
             {log})"
        );
    }
    if reports(&["DO NOT MATCH THE HASHES"]) {
        return format!(
            "pip: expected the wheels of libtorch {VERSION} with known hashes, got others; try again without \
             PIP_INDEX_URL and PIP_EXTRA_INDEX_URL (pip's output: {log})"
        );
    }
    if reports(&["No matching distribution found", "Could not find a version that satisfies"]) {
        return format!(
            "pip: no wheel of torch {VERSION} for this python3 and machine; try Python 3.10 to 3.14 on x86_64 with a \
             current pip, or set LIBTORCH to a libtorch {VERSION} (pip's output: {log})"
        );
    }
    format!("pip: cannot install torch {VERSION}; see its output in {log}")
}

/// A progress line on the terminal.
struct PipProgress<'a> {
    folders: [&'a Path; 2],
    start: Instant,
    last: Instant,
    shown: bool,
}

impl<'a> PipProgress<'a> {
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

/// Returns the size of a folder in use: files that disappear meanwhile count zero.
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
    fn check(output: &str, expected: &str) {
        let found = explain(output, Variant::Cpu, Path::new("/c/log"));
        assert!(found.starts_with(expected), "{found}");
        assert!(found.contains("/c/log"), "{found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }

    #[test]
    fn every_wheel_has_a_version_and_a_hash() {
        for set in [Variant::Cpu, Variant::Cuda] {
            let text = wheels(set);
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let (hashes, names): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with(' '));
            assert_eq!(names[0], format!("torch=={VERSION} \\"));
            assert!(
                names.iter().all(|name| name.split("==").count() == 2 && name.ends_with(" \\")),
                "{names:?}"
            );
            let digits = |line: &&str| line.trim_end_matches(" \\").len() == "    --hash=sha256:".len() + 64;
            assert!(hashes.len() >= names.len() && hashes.iter().all(digits), "{hashes:?}");
            assert!(names.iter().all(|name| name.starts_with("torch") || name.starts_with("nvidia-")));
        }
    }

    #[test]
    fn each_failure_of_pip_is_explained() {
        check(
            "WARNING: Retrying (Retry(total=0, ...)) after connection broken by 'NewConnectionError('<...>: Failed \
             to establish a new connection: [Errno -3] Temporary failure in name resolution')': /simple/torch/\n\
             ERROR: Could not find a version that satisfies the requirement torch==2.11.0 (from versions: none)\n\
             ERROR: No matching distribution found for torch==2.11.0",
            "pip: cannot reach the package index",
        );
        check(
            "ERROR: Could not find a version that satisfies the requirement torch==2.11.0 (from versions: 2.4.1)\n\
             ERROR: No matching distribution found for torch==2.11.0",
            "pip: no wheel",
        );
        check(
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated",
            "pip: expected the wheels of libtorch 2.11.0 with known hashes, got others",
        );
        check(
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk: expected 3 GB free to install libtorch for CPU",
        );
        check(
            "... SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]",
            "pip: expected a trusted certificate",
        );
        check("Segmentation fault", "pip: cannot install torch");
    }
}
