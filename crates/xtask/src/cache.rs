//! The user's cache of libtorch: filled once, by pip, whole or not at all.

use std::env;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};

use crate::libtorch::{Libtorch, Set, VERSION, version};
use crate::stop::Stop;
use crate::{pip, tools};

/// What the wheels, unpacked beside their downloads, need for a while.
pub(crate) fn needed_gb(set: Set) -> u64 {
    match set {
        Set::Cpu => 3,
        Set::Cuda => 9,
    }
}

/// One set's place in the cache.
#[derive(Debug)]
pub(crate) struct Cache {
    set: Set,
    folder: PathBuf,
}

impl Cache {
    /// `$XDG_CACHE_HOME/ldm/libtorch-2.11.0-{cpu,cuda}`.
    pub(crate) fn of_user(set: Set) -> Result<Self> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = absolute("XDG_CACHE_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".cache")))
            .context("there is no home folder to keep libtorch in: set XDG_CACHE_HOME to a folder")?;
        Ok(Self { set, folder: caches.join(format!("ldm/libtorch-{VERSION}-{}", set.name())) })
    }

    /// The folder of the set, with its libtorch in `torch`; installs it where it is not there yet.
    pub(crate) fn fill(&self) -> Result<&Path> {
        if self.is_whole() {
            return Ok(&self.folder);
        }
        tools::check()?;
        let parent = self.folder.parent().context("the cache has no folder")?;
        fs::create_dir_all(parent).with_context(|| {
            format!(
                "cannot make {}: make it writable or set XDG_CACHE_HOME to another folder",
                parent.display()
            )
        })?;
        let stop = Stop::on_signals()?;
        let _lock = self.lock(&stop)?;
        // Another set-up may have filled it while this one waited.
        if !self.is_whole() {
            self.remove_leftovers(parent)?;
            self.check_room(parent)?;
            self.install(&stop)?;
        }
        Ok(&self.folder)
    }

    /// `build-version` is written last, so a folder that has it has everything.
    fn is_whole(&self) -> bool {
        let torch = self.folder.join("torch");
        torch.join("build-version").exists()
            && Libtorch::read(&torch).is_ok_and(|found| found.set == self.set)
    }

    /// One set-up at a time; the system frees the lock however its holder ends.
    fn lock(&self, stop: &Stop) -> Result<File> {
        let path = self.beside("lock");
        let file = File::create(&path)
            .with_context(|| format!("cannot write {}: make the cache folder writable", path.display()))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if !told => {
                    eprintln!("another set-up is installing libtorch: waiting for it");
                    told = true;
                }
                Err(TryLockError::WouldBlock) => stop.pause()?,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
    }

    /// Whoever holds the lock is alone, so every unfinished folder belongs to a set-up that died.
    fn remove_leftovers(&self, parent: &Path) -> Result<()> {
        let name = self.beside("part-");
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
        // Where df says nothing, pip will.
        let free = tools::free_bytes(parent).unwrap_or(u64::MAX);
        ensure!(
            free >= need * 1_000_000_000,
            "{} has {:.1} GB free and libtorch for {} needs {need} GB while it is installed: make room or set \
             XDG_CACHE_HOME to a folder on a larger disk",
            parent.display(),
            free as f64 / 1e9,
            self.set.title(),
        );
        Ok(())
    }

    fn install(&self, stop: &Stop) -> Result<()> {
        eprintln!(
            "installing libtorch {VERSION} for {} into {}, once; this downloads {} GB",
            self.set.title(),
            self.folder.display(),
            if self.set == Set::Cpu { "0.6" } else { "3" },
        );
        let part = Part::make(self.beside(&format!("part-{}", process::id())))?;
        pip::install(self.set, &part.set(), &part.scratch(), &self.beside("log"), stop)?;
        let torch = part.set().join("torch");
        let mut version = version(&torch)
            .with_context(|| format!("the wheel of torch {VERSION} does not say its version"))?;
        if self.set == Set::Cpu {
            keep_cpu(&torch.join("lib"))?;
            version = format!("{VERSION}+cpu");
        }
        stop.check()?;
        // torch-sys reads it too, to check the version.
        fs::write(torch.join("build-version"), version).context("cannot write build-version")?;
        let found = Libtorch::read(&torch).map_err(|why| anyhow!("what pip installed {why}"))?;
        ensure!(
            found.set == self.set,
            "pip installed torch {} without CUDA: let pip use the index at pypi.org, or set up with --cpu",
            found.version
        );
        if self.folder.exists() {
            fs::rename(&self.folder, part.scratch().join("broken"))?;
        }
        fs::rename(part.set(), &self.folder)
            .with_context(|| format!("cannot move libtorch to {}", self.folder.display()))
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut path = self.folder.clone().into_os_string();
        path.push(format!(".{ending}"));
        path.into()
    }
}

/// The folder an installation is made in, on the cache's own disk; goes whatever happens.
struct Part(PathBuf);

impl Part {
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

impl Drop for Part {
    fn drop(&mut self) {
        // A failure here leaves a folder that the next set-up removes.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Takes CUDA out of the wheel's libraries, and makes anew the one that names them all.
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
        .with_context(|| format!("{compiler} does not start"))?;
    if let Some(mut source) = child.stdin.take() {
        // A compiler that ends without reading says below why.
        let _ = source.write_all(b"\n");
    }
    let output = child.wait_with_output().with_context(|| format!("{compiler} fails"))?;
    ensure!(
        output.status.success(),
        "{compiler} cannot link libtorch.so, is it a working C compiler? {}",
        String::from_utf8_lossy(&output.stderr).lines().next_back().unwrap_or_default()
    );
    Ok(())
}
