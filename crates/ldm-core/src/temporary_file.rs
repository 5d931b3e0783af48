//! A file that gets its name when it is complete.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// A file in a folder, with the permissions of a new file under the umask. On Linux it has no name until
/// [`rename`](Self::rename), so that nothing is left of a program that is killed; elsewhere, and on file systems without
/// unnamed files, its name begins with `.part-`.
#[derive(Debug)]
pub(crate) enum TemporaryFile {
    #[cfg(target_os = "linux")]
    Unnamed(File),
    Named(NamedTempFile),
}

impl TemporaryFile {
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{Mode, OFlags, open};
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            // Without /proc the file could not be given its name.
            if Path::new("/proc/self/fd").exists()
                && let Ok(file) = open(folder, flags, Mode::from_raw_mode(0o666))
            {
                return Ok(Self::Unnamed(file.into()));
            }
        }
        builder().tempfile_in(folder).map(Self::Named)
    }

    pub(crate) fn file(&self) -> &File {
        match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Gives the file its name, that of an existing file too.
    pub(crate) fn rename(self, path: &Path) -> io::Result<()> {
        let named = match self {
            #[cfg(target_os = "linux")]
            Self::Unnamed(file) => link(&file, path)?,
            Self::Named(file) => file,
        };
        named.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// The names of temporary files, and the permissions of new files.
fn builder() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".part-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder
}

/// Gives an unnamed file a temporary name beside `path`: a file can only be linked to a name that is free.
#[cfg(target_os = "linux")]
fn link(file: &File, path: &Path) -> io::Result<NamedTempFile> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{AtFlags, CWD, linkat};
    let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
    let folder = crate::files::parent(path);
    builder().make_in(folder, |name| {
        linkat(CWD, &descriptor, CWD, name, AtFlags::SYMLINK_FOLLOW)?;
        file.try_clone()
    })
}
