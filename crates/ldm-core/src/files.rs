//! Atomic writes of files and folders.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::temporary_file::TemporaryFile;
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
/// [`Error::Stopped`], and only then.
pub fn stopping() -> Result<()> {
    if STOPPING.load(Ordering::SeqCst) { Err(Error::Stopped) } else { Ok(()) }
}

/// Writes a file atomically: to a temporary file next to it, which is synced and renamed. A reader sees the old file or the
/// new one, never a partial file, even after an interruption.
///
/// `write` must not write another file by this module: with a thread in [`when_idle`], each would wait for the other.
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
    let pending = PendingFile::new(path)?;
    {
        let mut writer = BufWriter::new(pending.temporary.file());
        write(&mut writer)?;
        writer.flush().map_err(Error::io(path))?;
    }
    pending.place()
}

/// A file that is written in parts over some time, and gets its name when it is complete. Dropped before that, it leaves
/// nothing.
#[derive(Debug)]
pub struct PendingFile {
    path: PathBuf,
    temporary: TemporaryFile,
}

impl PendingFile {
    /// An empty file in the folder of `path`.
    ///
    /// # Errors
    /// [`Error::Io`] with `path`, also where it is a device, a pipe or a socket, which a file must not replace.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        if std::fs::symlink_metadata(&path).is_ok_and(|found| is_special(found.file_type())) {
            let message = "expected a file to replace, got a device, a pipe or a socket; try another path";
            return Err(Error::io(&path)(std::io::Error::new(std::io::ErrorKind::InvalidInput, message)));
        }
        let temporary = TemporaryFile::new(parent(&path)).map_err(Error::io(&path))?;
        Ok(Self { path, temporary })
    }

    /// Makes the file durable and gives it its name; an existing file is replaced.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn finish(self) -> Result<()> {
        let _writing = writing();
        self.place()
    }

    fn place(self) -> Result<()> {
        let Self { path, temporary } = self;
        // A replaced file keeps its mode. Some file systems (vfat, CIFS) have none: no error.
        if let Ok(old) = std::fs::metadata(&path) {
            drop(temporary.file().set_permissions(old.permissions()));
        }
        temporary.file().sync_all().map_err(Error::io(&path))?;
        temporary.rename(&path).map_err(Error::io(&path))?;
        sync_folder(parent(&path))
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.temporary.file().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.temporary.file().flush()
    }
}

impl Seek for PendingFile {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.temporary.file().seek(to)
    }
}

/// Checks that the folder of a file that is written later exists.
///
/// # Errors
/// [`Error::Invalid`] with the file and its folder.
pub fn check_folder_of(path: impl AsRef<Path>) -> Result<()> {
    let (path, folder) = (path.as_ref(), parent(path.as_ref()));
    if folder.is_dir() {
        return Ok(());
    }
    Err(Error::expected(path.display(), format!("an existing folder {}", folder.display()), "none"))
}

fn is_special(kind: std::fs::FileType) -> bool {
    !(kind.is_file() || kind.is_dir() || kind.is_symlink())
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the entries of a folder durable: files that were created, renamed or removed in it. A file system that cannot
/// synchronize a folder (some FUSE and SMB mounts) is no error, as in SQLite.
///
/// # Errors
/// [`Error::Io`] with `folder`.
pub fn sync_folder(folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    match File::open(folder).and_then(|open| open.sync_all()) {
        Err(error) if !cannot_synchronize(&error) => Err(Error::io(folder)(error)),
        _ => Ok(()),
    }
}

/// True for the errors of a file system without this operation: EINVAL, ENOSYS, EOPNOTSUPP; EACCES for a folder that may
/// be written but not read.
fn cannot_synchronize(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    matches!(error.kind(), InvalidInput | Unsupported | PermissionDenied)
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
/// An existing `path` is an error, or with `replace` replaced at the end, with everything in it. `write` must create
/// everything through this module, so that a program that stops can remove it.
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
    let parent = parent(path);
    make_folder(parent)?;
    let temporary = {
        let _writing = writing();
        let temporary =
            tempfile::Builder::new().prefix(".part-").tempdir_in(parent).map_err(Error::io(path))?;
        unfinished().push(temporary.path().to_path_buf());
        temporary
    };
    let filled = temporary.path().join("new");
    let written = make_all(&filled).map_err(Error::io(path)).and_then(|()| write(&filled));
    let placed = written.and_then(|()| {
        let _writing = writing();
        if !unfinished().iter().any(|folder| folder == temporary.path()) {
            return Err(Error::Stopped); // and the folder is removed
        }
        sync_folder(&filled)?;
        if !path.exists() {
            return std::fs::rename(&filled, path).map_err(Error::io(path));
        }
        if replace { exchange(&filled, path) } else { Err(taken()) }
    });
    let folder = temporary.path().to_path_buf();
    if folder.join(OLD).exists() {
        let _ = temporary.keep(); // the only copy of the old folder
    } else {
        drop(temporary);
    }
    unfinished().retain(|other| *other != folder);
    placed.and_then(|()| sync_folder(parent))
}

/// Name of a replaced folder beside its successor, until the successor is in place.
const OLD: &str = "old";

/// Puts the folder `filled` in the place of `path`, and the other way round. On Linux there is always one of them at `path`.
///
/// # Errors
/// [`Error::Io`] with `path`, which is unchanged; or, after two failures, with the place where the old folder is now.
fn exchange(filled: &Path, path: &Path) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        if renameat_with(CWD, filled, CWD, path, RenameFlags::EXCHANGE).is_ok() {
            return Ok(());
        }
    }
    // Other systems, and file systems that cannot exchange.
    let old = filled.with_file_name(OLD);
    std::fs::rename(path, &old).map_err(Error::io(path))?;
    let Err(error) = std::fs::rename(filled, path) else {
        return std::fs::remove_dir_all(&old).map_err(Error::io(old));
    };
    let back = std::fs::rename(&old, path);
    Err(if back.is_ok() { Error::io(path)(error) } else { Error::io(old)(error) })
}

/// [`write_whole`] for bytes in memory.
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    write_whole(path, |writer| writer.write_all(bytes).map_err(Error::io(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_file_systems_without_synchronization_are_no_error() {
        for (errno, ignored) in [(22, true), (38, true), (95, true), (13, true), (5, false), (28, false)] {
            let error = std::io::Error::from_raw_os_error(errno);
            assert_eq!(cannot_synchronize(&error), ignored, "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        sync_folder(folder.path()).unwrap();
        let error = sync_folder(folder.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("absent: No such file"), "{error}");
    }
}
