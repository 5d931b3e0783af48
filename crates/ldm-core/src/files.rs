//! Files that are written whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use crate::{Error, Result};

/// Held for reading by every write in progress.
static WRITES: RwLock<()> = RwLock::new(());

/// Waits until no file is being written, and keeps new writes from starting while the guard lives: a program that
/// is asked to stop takes it before it exits, and leaves nothing half-made behind.
pub fn when_idle() -> RwLockWriteGuard<'static, ()> {
    WRITES.write().unwrap_or_else(PoisonError::into_inner)
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
    let _writing = WRITES.read().unwrap_or_else(PoisonError::into_inner);
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

/// [`write_whole`] of bytes at hand.
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    write_whole(path, |writer| writer.write_all(bytes).map_err(Error::io(path)))
}
