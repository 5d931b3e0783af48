//! The user's cache of libtorch, filled once by pip, atomically.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};

use crate::libtorch::{Libtorch, VERSION, Variant, version};
use crate::stop::StopSignal;
use crate::{pip, tools};

/// Returns the disk space for the downloads and the unpacked wheels during installation.
pub(crate) fn needed_gb(set: Variant) -> u64 {
    match set {
        Variant::Cpu => 3,
        Variant::Cuda => 9,
    }
}

/// The cache of one variant.
#[derive(Debug)]
pub(crate) struct Cache {
    set: Variant,
    folder: PathBuf,
}

impl Cache {
    /// Creates the cache at `$XDG_CACHE_HOME/ldm/libtorch-2.11.0-{cpu,cuda}`.
    pub(crate) fn of_user(set: Variant) -> Result<Self> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = absolute("XDG_CACHE_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".cache")))
            .context("HOME: expected a folder for libtorch, got none; try setting XDG_CACHE_HOME")?;
        Ok(Self { set, folder: caches.join(format!("ldm/libtorch-{VERSION}-{}", set.name())) })
    }

    /// Returns the folder of the variant, with its libtorch in `torch`; installs it if necessary.
    pub(crate) fn fill(&self) -> Result<&Path> {
        if self.is_complete() {
            return Ok(&self.folder);
        }
        tools::check()?;
        let parent = self.folder.parent().context("the cache has no folder")?;
        fs::create_dir_all(parent).with_context(|| {
            format!("cannot create {}; try setting XDG_CACHE_HOME to a writable folder", parent.display())
        })?;
        let stop = StopSignal::on_signals()?;
        let _lock = self.lock(&stop)?;
        // Another setup may have filled it while this one waited.
        if !self.is_complete() {
            self.remove_leftovers(parent)?;
            self.check_room(parent)?;
            self.install(&stop)?;
        }
        Ok(&self.folder)
    }

    /// Returns whether the installation is complete: `build-version` is written last.
    fn is_complete(&self) -> bool {
        let torch = self.folder.join("torch");
        torch.join("build-version").exists()
            && Libtorch::read(&torch).is_ok_and(|found| found.set == self.set)
    }

    /// Locks the cache for one setup at a time; the system frees the lock however the process ends.
    fn lock(&self, stop: &StopSignal) -> Result<File> {
        let path = self.with_suffix("lock");
        let file = File::create(&path).with_context(|| {
            format!("cannot write {}; try making the cache folder writable", path.display())
        })?;
        let mut announced = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if !announced => {
                    eprintln!("waiting for another setup, which is installing libtorch");
                    announced = true;
                }
                Err(TryLockError::WouldBlock) => stop.pause()?,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
    }

    /// Removes unfinished folders: under the lock, they belong to a setup that died.
    fn remove_leftovers(&self, parent: &Path) -> Result<()> {
        let name = self.with_suffix("part-");
        let prefix = name.file_name().and_then(|name| name.to_str()).context("the cache has no name")?;
        for entry in fs::read_dir(parent)?.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
                let path = entry.path();
                fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn check_room(&self, parent: &Path) -> Result<()> {
        let need = needed_gb(self.set);
        // Without an answer of df, pip reports a full disk.
        let free = tools::free_bytes(parent).unwrap_or(u64::MAX);
        ensure!(
            free >= need * 1_000_000_000,
            "{}: expected {need} GB free to install libtorch for {}, got {:.1} GB; try setting XDG_CACHE_HOME to a folder \
             on a larger disk",
            parent.display(),
            self.set.title(),
            free as f64 / 1e9,
        );
        Ok(())
    }

    fn install(&self, stop: &StopSignal) -> Result<()> {
        eprintln!(
            "installing libtorch {VERSION} for {} into {}, once (a download of {} GB)",
            self.set.title(),
            self.folder.display(),
            if self.set == Variant::Cpu { "0.6" } else { "3" },
        );
        let part = PartialInstall::make(self.with_suffix(&format!("part-{}", process::id())))?;
        pip::install(self.set, &part.set(), &part.scratch(), &self.with_suffix("log"), stop)?;
        let torch = part.set().join("torch");
        let mut version = version(&torch)
            .with_context(|| format!("expected a version in the wheel of torch {VERSION}, got none"))?;
        if self.set == Variant::Cpu {
            keep_cpu(&torch.join("lib"))?;
            version = format!("{VERSION}+cpu");
        }
        stop.check()?;
        // torch-sys reads it too, to check the version.
        fs::write(torch.join("build-version"), version).context("cannot write build-version")?;
        let found = Libtorch::read(&torch).map_err(|why| anyhow!("the installed wheel {why}"))?;
        ensure!(
            found.set == self.set,
            "expected torch with CUDA, got {} without; try pip with the index at pypi.org, or setup --cpu",
            found.version
        );
        if self.folder.exists() {
            fs::rename(&self.folder, part.scratch().join("broken"))?;
        }
        fs::rename(part.set(), &self.folder)
            .with_context(|| format!("cannot move libtorch to {}", self.folder.display()))
    }

    fn with_suffix(&self, ending: &str) -> PathBuf {
        let mut path = self.folder.clone().into_os_string();
        path.push(format!(".{ending}"));
        path.into()
    }
}

/// The temporary folder of an installation, on the cache's disk; always removed.
struct PartialInstall(PathBuf);

impl PartialInstall {
    fn make(path: PathBuf) -> Result<Self> {
        let part = Self(path);
        for folder in [part.set(), part.scratch()] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(part)
    }

    fn set(&self) -> PathBuf {
        self.0.join("set")
    }

    fn scratch(&self) -> PathBuf {
        self.0.join("scratch")
    }
}

impl Drop for PartialInstall {
    fn drop(&mut self) {
        // A failure here leaves a folder that the next setup removes.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes CUDA from the wheel's libraries, and links libtorch.so again without it.
fn keep_cpu(lib: &Path) -> Result<()> {
    const CUDA: [&str; 4] = ["libtorch.so", "libc10_cuda.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so"];
    for entry in fs::read_dir(lib).context("the wheel of torch has no libraries")?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if CUDA.contains(&&*name) || (name.starts_with("libtorch_cuda") && name.ends_with(".so")) {
            fs::remove_file(entry.path()).with_context(|| format!("cannot remove {name}"))?;
        }
    }
    let compiler = tools::c_compiler();
    let mut child = Command::new(&compiler)
        .args(["-shared", "-x", "c", "-", "-o", "libtorch.so"])
        .args(["-Wl,--no-as-needed", "-L.", "-ltorch_cpu", "-Wl,-soname,libtorch.so", "-Wl,-rpath,$ORIGIN"])
        .current_dir(lib)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {compiler}"))?;
    if let Some(mut source) = child.stdin.take() {
        // The error of a compiler that ends without reading is reported below.
        let _ = source.write_all(b"\n");
    }
    let output = child.wait_with_output().with_context(|| format!("{compiler} fails"))?;
    ensure!(
        output.status.success(),
        "{compiler}: expected a C compiler that links libtorch.so, got {}",
        String::from_utf8_lossy(&output.stderr).lines().next_back().unwrap_or_default()
    );
    Ok(())
}
