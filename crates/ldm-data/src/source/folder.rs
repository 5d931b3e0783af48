//! Listing of a folder and the folders in it.

use std::fs::{self, FileType};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use ldm_core::{Error, Result};

use crate::source::store::{Content, Stored, is_visible};

/// The files of a folder, and the entries that were passed over.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) files: Vec<Stored>,
    pub(super) passed_over: Vec<String>,
}

/// Lists the files of a folder and of the folders in it. Links are followed: datasets often consist of them.
///
/// An entry that is neither a file nor a folder, or that cannot be looked at, is passed over: opening a FIFO would wait
/// for a writer, and one damaged link is no reason to refuse a million images.
pub(super) fn list(root: &Path) -> Result<Listed> {
    let metadata = fs::metadata(root).map_err(Error::io(root))?;
    let mut listed = Listed::default();
    // An unreadable root is an error; a folder below it is an entry.
    fs::read_dir(root).map_err(Error::io(root))?;
    listed.add(root, "", &mut vec![(metadata.dev(), metadata.ino())]);
    Ok(listed)
}

impl Listed {
    /// Adds the entries of `folder`; `above` are device and inode of it and of the folders that it is in.
    fn add(&mut self, folder: &Path, prefix: &str, above: &mut Vec<(u64, u64)>) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.pass_over(folder, error),
        };
        for entry in entries {
            match entry {
                Ok(entry) => self.add_entry(&entry.path(), prefix, above),
                Err(error) => self.pass_over(folder, error),
            }
        }
    }

    fn add_entry(&mut self, path: &Path, prefix: &str, above: &mut Vec<(u64, u64)>) {
        let name = path.file_name().unwrap_or_default();
        let Some(name) = name.to_str() else {
            return self.pass_over(path, "expected a name in UTF-8, got another encoding");
        };
        let name = format!("{prefix}{name}");
        if !is_visible(&name) {
            return;
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if path.is_symlink() => {
                return self.pass_over(path, format!("expected a link to a file or a folder, got {error}"));
            }
            Err(error) => return self.pass_over(path, error),
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let this = (metadata.dev(), metadata.ino());
            if above.contains(&this) {
                return self.pass_over(path, "expected a link to another folder, got one that it is in");
            }
            above.push(this);
            self.add(path, &format!("{name}/"), above);
            above.pop();
        } else if kind.is_file() {
            self.files.push(Stored { name, size: metadata.len(), content: Content::Separate });
        } else {
            self.pass_over(path, format!("expected a file or a folder, got {}", kind_of(kind)));
        }
    }

    fn pass_over(&mut self, path: &Path, reason: impl std::fmt::Display) {
        self.passed_over.push(format!("{}: {reason}", path.display()));
    }
}

/// Names a kind of entry that is neither a file nor a folder.
pub(super) fn kind_of(kind: FileType) -> &'static str {
    if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}
