//! Files and folders that are written whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Error, Result};

/// Held for reading by every write in progress.
static WRITES: RwLock<()> = RwLock::new(());

/// Somebody waits in [`when_idle`].
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Folders that [`write_folder`] has begun.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn writing() -> RwLockReadGuard<'static, ()> {
    WRITES.read().unwrap_or_else(PoisonError::into_inner)
}

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no file is being written, and keeps new writes from starting while the guard lives: a program that
/// is asked to stop takes it before it exits, and leaves nothing half-made behind. Long files that ask [`stopping`]
/// are given up, and unfinished folders removed.
pub fn when_idle() -> RwLockWriteGuard<'static, ()> {
    STOPPING.store(true, Ordering::SeqCst);
    let guard = WRITES.write().unwrap_or_else(PoisonError::into_inner);
    for folder in unfinished().drain(..) {
        // Whoever exits has nobody left to tell.
        drop(std::fs::remove_dir_all(folder));
    }
    STOPPING.store(false, Ordering::SeqCst);
    guard
}

/// Fails when the program is asked to stop: what writes a long file asks now and then.
///
/// # Errors
/// [`Error::Invalid`], and only then.
pub fn stopping() -> Result<()> {
    if STOPPING.load(Ordering::SeqCst) { Err(Error::invalid("stopped")) } else { Ok(()) }
}

/// Writes a file beside its place, makes it durable, and renames it: a reader sees the old file or the new one,
/// never half a file, whatever interrupts this.
///
/// # Errors
/// [`Error::Io`] with `path`; the file beside is removed.
pub fn write_whole(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let written = {
        let _writing = writing();
        write_beside(path, write)
    };
    // A write that was given up for who waits in `when_idle` lets them go first.
    if written.is_err() {
        drop(writing());
    }
    written
}

fn write_beside(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(".part-").tempfile_in(folder).map_err(Error::io(path))?;
    {
        let mut writer = BufWriter::new(temporary.as_file());
        write(&mut writer)?;
        writer.flush().map_err(Error::io(path))?;
    }
    temporary.as_file().sync_all().map_err(Error::io(path))?;
    // A temporary file is private to its maker; what it becomes has the usual permissions.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let readable = std::fs::Permissions::from_mode(0o644);
        temporary.as_file().set_permissions(readable).map_err(Error::io(path))?;
    }
    temporary.persist(path).map_err(|error| Error::Io { path: path.to_path_buf(), source: error.error })?;
    Ok(())
}

/// Makes a folder and what is missing above it, but never while [`when_idle`] removes what is unfinished.
///
/// # Errors
/// [`Error::Io`] with `path`.
pub fn make_folder(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    make_all(path).map_err(Error::io(path))
}

fn make_all(path: &Path) -> std::io::Result<()> {
    let _writing = writing();
    std::fs::create_dir_all(path)
}

/// Fills a folder beside its place and renames it as a whole. What is at `path` already is an error, or is replaced
/// when all is written. The folder `write` is given has another name; it is removed when something fails. All that
/// `write` makes it makes by this module, so that a program asked to stop can remove it.
///
/// # Errors
/// [`Error::Io`] when `path` is there and not to be replaced, or cannot be written.
pub fn write_folder(
    path: impl AsRef<Path>,
    replace: bool,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let taken = || Error::io(path)(std::io::ErrorKind::AlreadyExists.into());
    if path.exists() && !replace {
        return Err(taken());
    }
    let beside = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(beside)?;
    let temporary = {
        let _writing = writing();
        let temporary =
            tempfile::Builder::new().prefix(".part-").tempdir_in(beside).map_err(Error::io(path))?;
        unfinished().push(temporary.path().to_path_buf());
        temporary
    };
    let [filled, old] = ["new", "old"].map(|name| temporary.path().join(name));
    let written = make_all(&filled).map_err(Error::io(path)).and_then(|()| write(&filled));
    let placed = written.and_then(|()| {
        let _writing = writing();
        if !unfinished().iter().any(|folder| folder == temporary.path()) {
            return Err(Error::invalid("stopped")); // and removed, with what was in it
        }
        if path.exists() {
            if !replace {
                return Err(taken());
            }
            std::fs::rename(path, &old).map_err(Error::io(path))?;
        }
        std::fs::rename(&filled, path).map_err(|error| {
            drop(std::fs::rename(&old, path)); // where there was nothing before, this does nothing
            Error::io(path)(error)
        })
    });
    let folder = temporary.path().to_path_buf();
    drop(temporary);
    unfinished().retain(|other| *other != folder);
    placed
}

/// [`write_whole`] of bytes at hand.
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    write_whole(path, |writer| writer.write_all(bytes).map_err(Error::io(path)))
}
