//! Files that are published in an archive.

use std::fs::File;
use std::path::Path;

use ldm_core::{Error, Result, files};
use serde::Deserialize;
use zip::ZipArchive;

use crate::RemoteFile;
use crate::part::copy_hashed;

/// The archive, a zip or a Python wheel, that is at the URL of a file and holds it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteArchive {
    /// Path of the file in the archive.
    pub member: String,
    /// Size of the archive in bytes.
    pub size: u64,
    /// Of the archive: 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// The archive of `file` as a download of its own, if it has one.
pub(crate) fn archive_of(file: &RemoteFile) -> Option<RemoteFile> {
    let archive = file.archive.as_ref()?;
    Some(RemoteFile {
        name: format!("{}.zip", file.name),
        url: file.url.clone(),
        license: file.license.clone(),
        size: archive.size,
        sha256: archive.sha256.clone(),
        archive: None,
    })
}

/// Extracts `file` from the downloaded archive to `to`, and removes the archive.
///
/// # Errors
/// [`Error::Format`] for an archive without the file, or whose file has another sha256.
pub(crate) fn extract(file: &RemoteFile, archive: &Path, to: &Path) -> Result<()> {
    let member = &file.archive.as_ref().expect("a file in an archive").member;
    let refuse = |message: String| Error::format(archive, format!("`{member}`: {message}"));
    let mut zip = ZipArchive::new(File::open(archive).map_err(Error::io(archive))?)
        .map_err(|error| refuse(error.to_string()))?;
    let mut source = zip.by_name(member).map_err(|error| refuse(error.to_string()))?;
    if source.size() != file.size {
        return Err(refuse(format!("expected {} bytes, got {}", file.size, source.size())));
    }
    files::write_whole(to, |writer| {
        let found = copy_hashed(&mut source, writer).map_err(Error::io(to))?;
        if found == file.sha256 {
            Ok(())
        } else {
            Err(refuse(format!("expected sha256 {}, got {found}", file.sha256)))
        }
    })?;
    std::fs::remove_file(archive).map_err(Error::io(archive))
}
