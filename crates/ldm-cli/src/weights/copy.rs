//! Files from copies the user has.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ldm_core::{Error, files};

use super::manifest::RemoteFile;
use super::part::{copy_hashed, part_of};

/// A file among those given.
struct Candidate {
    path: PathBuf,
    size: u64,
    /// Named by the user, not found in a folder.
    named: bool,
}

/// Installs into `folder` those of the `wanted` files that are among `given`, files or folders. A copy is known by its
/// size and sha256, whatever it is called. Returns a sentence for each file that was not found.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn install_copies(
    wanted: &[&RemoteFile],
    given: &[PathBuf],
    folder: &Path,
) -> anyhow::Result<Vec<String>> {
    let candidates = candidates(given)?;
    let mut missing = Vec::new();
    for file in wanted {
        let mut near = None;
        let mut installed = false;
        for candidate in &candidates {
            // Others in a folder are none of our business.
            let meant = candidate.path.file_name().is_some_and(|name| *name == *file.name)
                || candidate.named && given.len() == 1 && wanted.len() == 1;
            let why = if candidate.size == file.size {
                match install(file, &candidate.path, &folder.join(&file.name)) {
                    Ok(()) => {
                        installed = true;
                        break;
                    }
                    Err(Error::Format { message, .. }) => message,
                    Err(error) => return Err(error.into()),
                }
            } else {
                format!("expected {} bytes, found {}", file.size, candidate.size)
            };
            if meant {
                near = Some(format!("{}: {why}", candidate.path.display()));
            }
        }
        if !installed {
            missing.push(near.unwrap_or_else(|| {
                format!("no copy of `{}` ({} bytes) is among what was given", file.name, file.size)
            }));
        }
    }
    Ok(missing)
}

/// The files given, and those in the folders given.
fn candidates(given: &[PathBuf]) -> anyhow::Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for path in given {
        let context = || path.display().to_string();
        let data = path.metadata().with_context(context)?;
        if data.is_file() {
            found.push(Candidate { path: path.clone(), size: data.len(), named: true });
            continue;
        }
        for entry in path.read_dir().with_context(context)? {
            let path = entry.with_context(context)?.path();
            // A link that leads nowhere is no copy.
            if let Some(data) = path.metadata().ok().filter(std::fs::Metadata::is_file) {
                found.push(Candidate { path, size: data.len(), named: false });
            }
        }
    }
    Ok(found)
}

/// Copies `from` to the place `to`, if its bytes are those of `file`; they are hashed as they are copied.
fn install(file: &RemoteFile, from: &Path, to: &Path) -> ldm_core::Result<()> {
    let mut source = File::open(from).map_err(Error::io(from))?;
    files::write_whole(to, |writer| {
        let found = copy_hashed(&mut source, writer).map_err(Error::io(to))?;
        if found == file.sha256 {
            Ok(())
        } else {
            Err(Error::format(from, format!("expected sha256 {}, found {found}", file.sha256)))
        }
    })?;
    // What an interrupted download left is of no use now.
    let part = part_of(to);
    if part.exists() { std::fs::remove_file(&part).map_err(Error::io(&part)) } else { Ok(()) }
}
