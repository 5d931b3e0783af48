//! One `ldm weights get` of a resource at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use anyhow::Context;

use crate::progress::Printer;

/// Held while a resource's folder is written to; the system frees it however its holder ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes `folder`, and waits for whoever is at work in it.
    pub(crate) fn take(folder: &Path, printer: Printer) -> anyhow::Result<Self> {
        let context = || folder.display().to_string();
        std::fs::create_dir_all(folder).with_context(context)?;
        let file = File::create(folder.join(".lock")).with_context(context)?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                printer.say(&format!(
                    "{}: another `ldm weights get` is at work here: waiting for it",
                    context()
                ));
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        match locked {
            // Network file systems of clusters may have no locks, and must still be of use.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                Printer::warn(&format!(
                    "{}: no locks here, so run one `ldm weights get` at a time",
                    context()
                ));
            }
            other => other.with_context(context)?,
        }
        Ok(Self { _file: file })
    }
}
