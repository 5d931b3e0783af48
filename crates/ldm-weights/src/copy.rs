//! Installation from copies on this machine.

use std::fs::File;
use std::path::{Path, PathBuf};

use ldm_core::{Error, Result, files};

use crate::RemoteFile;
use crate::part::{copy_hashed, part_of};

/// One of the given files.
struct Candidate {
    path: PathBuf,
    size: u64,
    /// Given by its own path, not by its folder.
    named: bool,
}

/// Installs into `folder` those of the `wanted` files that are among `given`, files or folders. A copy is identified by
/// its size and sha256, whatever its name. Returns a message for each file that was not found.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn install_copies(
    wanted: &[&RemoteFile],
    given: &[PathBuf],
    folder: &Path,
) -> Result<Vec<String>> {
    let candidates = candidates(given)?;
    let mut missing = Vec::new();
    for file in wanted {
        let mut near = None;
        let mut installed = false;
        for candidate in &candidates {
            // Other files of a folder are not reported.
            let meant = candidate.path.file_name().is_some_and(|name| *name == *file.name)
                || candidate.named && given.len() == 1 && wanted.len() == 1;
            let why = if candidate.size == file.size {
                match install(file, &candidate.path, &folder.join(&file.name)) {
                    Ok(()) => {
                        installed = true;
                        break;
                    }
                    Err(Error::Format { message, .. }) => message,
                    Err(error) => return Err(error),
                }
            } else {
                format!("expected {} bytes, got {}", file.size, candidate.size)
            };
            if meant {
                near = Some(format!("{}: {why}", candidate.path.display()));
            }
        }
        if !installed {
            missing.push(near.unwrap_or_else(|| {
                format!("no copy of `{}` ({} bytes) in the given files", file.name, file.size)
            }));
        }
    }
    Ok(missing)
}

/// Returns the given files, and those in the given folders.
fn candidates(given: &[PathBuf]) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for path in given {
        let data = path.metadata().map_err(Error::io(path))?;
        if data.is_file() {
            found.push(Candidate { path: path.clone(), size: data.len(), named: true });
            continue;
        }
        for entry in path.read_dir().map_err(Error::io(path))? {
            let path = entry.map_err(Error::io(path))?.path();
            // A dangling link is not a copy.
            if let Some(data) = path.metadata().ok().filter(std::fs::Metadata::is_file) {
                found.push(Candidate { path, size: data.len(), named: false });
            }
        }
    }
    Ok(found)
}

/// Copies `from` to `to` if it has the sha256 of `file`; it is hashed while it is copied.
fn install(file: &RemoteFile, from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io(from))?;
    files::write_whole(to, |writer| {
        let found = copy_hashed(&mut source, writer).map_err(Error::io(to))?;
        if found == file.sha256 {
            Ok(())
        } else {
            Err(Error::format(from, format!("expected sha256 {}, got {found}", file.sha256)))
        }
    })?;
    // The rest of an interrupted download is obsolete now.
    let part = part_of(to);
    if part.exists() { std::fs::remove_file(&part).map_err(Error::io(&part)) } else { Ok(()) }
}
