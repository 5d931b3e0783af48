//! Atomic writes of files and folders.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Error, Result};

/// Held as a reader by every write in progress.
static WRITES: RwLock<()> = RwLock::new(());

/// Set while a thread waits in [`when_idle`].
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Unfinished folders of [`write_folder`].
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn writing() -> RwLockReadGuard<'static, ()> {
    WRITES.read().unwrap_or_else(PoisonError::into_inner)
}

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no file is being written, and blocks new writes while the guard lives: a program takes it before exiting on
/// a signal, so that no partial output remains. Long writes that call [`stopping`] are aborted, and unfinished folders
/// removed.
pub fn when_idle() -> RwLockWriteGuard<'static, ()> {
    STOPPING.store(true, Ordering::SeqCst);
    let guard = WRITES.write().unwrap_or_else(PoisonError::into_inner);
    for folder in unfinished().drain(..) {
        // The program is about to exit: an error here has no use.
        drop(std::fs::remove_dir_all(folder));
    }
    STOPPING.store(false, Ordering::SeqCst);
    guard
}

/// Fails if the program is about to stop; writers of long files call it regularly.
///
/// # Errors
/// [`Error::Invalid`], and only then.
pub fn stopping() -> Result<()> {
    if STOPPING.load(Ordering::SeqCst) { Err(Error::invalid("stopped")) } else { Ok(()) }
}

/// Writes a file atomically: to a temporary file next to it, which is synced and renamed. A reader sees the old file or the
/// new one, never a partial file, even after an interruption.
///
/// # Errors
/// [`Error::Io`] with `path`; the temporary file is removed.
pub fn write_whole(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let written = {
        let _writing = writing();
        write_renamed(path, write)
    };
    // After an aborted write, waits for the thread in `when_idle`.
    if written.is_err() {
        drop(writing());
    }
    written
}

fn write_renamed(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(".part-").tempfile_in(folder).map_err(Error::io(path))?;
    {
        let mut writer = BufWriter::new(temporary.as_file());
        write(&mut writer)?;
        writer.flush().map_err(Error::io(path))?;
    }
    temporary.as_file().sync_all().map_err(Error::io(path))?;
    // A temporary file is private to its owner; the final one has the usual permissions.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let readable = std::fs::Permissions::from_mode(0o644);
        temporary.as_file().set_permissions(readable).map_err(Error::io(path))?;
    }
    temporary.persist(path).map_err(|error| Error::Io { path: path.to_path_buf(), source: error.error })?;
    Ok(())
}

/// Creates a folder and its missing parents, but never while [`when_idle`] removes unfinished folders.
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

/// Writes a folder atomically: `write` fills a temporary folder next to it, which is then renamed, or removed on an error.
/// An existing `path` is an error, or with `replace` replaced at the end. `write` must create everything through this
/// module, so that a program that stops can remove it.
///
/// # Errors
/// [`Error::Io`] when `path` exists without `replace`, or cannot be written.
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
    let parent = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(parent)?;
    let temporary = {
        let _writing = writing();
        let temporary =
            tempfile::Builder::new().prefix(".part-").tempdir_in(parent).map_err(Error::io(path))?;
        unfinished().push(temporary.path().to_path_buf());
        temporary
    };
    let [filled, old] = ["new", "old"].map(|name| temporary.path().join(name));
    let written = make_all(&filled).map_err(Error::io(path)).and_then(|()| write(&filled));
    let placed = written.and_then(|()| {
        let _writing = writing();
        if !unfinished().iter().any(|folder| folder == temporary.path()) {
            return Err(Error::invalid("stopped")); // and the folder is removed
        }
        if path.exists() {
            if !replace {
                return Err(taken());
            }
            std::fs::rename(path, &old).map_err(Error::io(path))?;
        }
        std::fs::rename(&filled, path).map_err(|error| {
            drop(std::fs::rename(&old, path)); // fails harmlessly if there was no old folder
            Error::io(path)(error)
        })
    });
    let folder = temporary.path().to_path_buf();
    drop(temporary);
    unfinished().retain(|other| *other != folder);
    placed
}

/// [`write_whole`] for bytes in memory.
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    write_whole(path, |writer| writer.write_all(bytes).map_err(Error::io(path)))
}
