//! Installation of a resource.

use std::path::{Path, PathBuf};

use ldm_core::{Error, Result, resources};

use crate::archive::{archive_of, extract};
use crate::copy::install_copies;
use crate::download::download;
use crate::lock::InstallLock;
use crate::{DownloadEvent, RemoteFile, Resource, sha256};

/// The source of the files of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightsSource {
    /// Copies on this machine: files, or folders of files, identified by size and sha256.
    Copies(Vec<PathBuf>),
    /// The network.
    Network {
        /// A mirror, with files at `MIRROR/NAME/FILE`; `None` for each file's own URL.
        mirror: Option<String>,
        /// Consecutive attempts without progress before giving up.
        retries: u32,
    },
}

/// Installs the files of `resource` that are missing and returns the paths of all of them. An installed file with
/// another sha256 is an error, or replaced by `force`.
///
/// # Errors
/// When a file cannot be read, written, downloaded or verified, and when copies do not include all files.
pub fn install(
    resource: &Resource,
    source: &WeightsSource,
    force: bool,
    observe: &mut dyn FnMut(DownloadEvent),
) -> Result<Vec<PathBuf>> {
    let folder = resources::cache_dir()?.join(&resource.name);
    // A shared folder with all files may be read-only.
    if !missing(resource, &folder, force)?.is_empty() {
        let lock = InstallLock::take(&folder, observe)?;
        // The process that held the lock may have installed them.
        let files = missing(resource, &folder, force)?;
        match source {
            WeightsSource::Copies(given) => {
                let absent = install_copies(&files, given, &folder)?;
                if !absent.is_empty() {
                    return Err(Error::invalid(format!(
                        "{} is not complete: {}",
                        resource.name,
                        absent.join("; ")
                    )));
                }
            }
            WeightsSource::Network { mirror, retries } => {
                for file in files {
                    let to = folder.join(&file.name);
                    let mut fetch = |file: &RemoteFile, url: &str, to: &Path| {
                        observe(DownloadEvent::Requested { file, url });
                        download(file, url, to, lock.is_exclusive(), *retries, observe)
                    };
                    match (mirror, archive_of(file)) {
                        (Some(base), _) => {
                            let base = base.trim_end_matches('/');
                            fetch(file, &format!("{base}/{}/{}", resource.name, file.name), &to)?;
                        }
                        (None, None) => fetch(file, &file.url, &to)?,
                        (None, Some(archive)) => {
                            let path = folder.join(&archive.name);
                            fetch(&archive, &archive.url, &path)?;
                            extract(file, &path, &to)?;
                        }
                    }
                }
            }
        }
    }
    Ok(resource.files.iter().map(|file| folder.join(&file.name)).collect())
}

/// Returns whether `file` is in `folder`, by its size alone; [`install`] checks the bytes.
pub fn is_installed(file: &RemoteFile, folder: &Path) -> bool {
    folder.join(&file.name).metadata().is_ok_and(|data| data.is_file() && data.len() == file.size)
}

/// Returns the files to install. A file with another sha256 is an error, or one of them by `force`.
fn missing<'a>(resource: &'a Resource, folder: &Path, force: bool) -> Result<Vec<&'a RemoteFile>> {
    let mut missing = Vec::new();
    for file in &resource.files {
        let path = folder.join(&file.name);
        if !path.exists() {
            missing.push(file);
            continue;
        }
        let found = sha256(&path)?;
        if found != file.sha256 {
            if !force {
                let message =
                    format!("expected sha256 {}, got {found}; try --force to replace it", file.sha256);
                return Err(Error::format(path, message));
            }
            missing.push(file);
        }
    }
    Ok(missing)
}
