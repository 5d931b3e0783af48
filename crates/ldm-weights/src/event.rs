//! Progress of an installation.

use std::path::Path;
use std::time::Duration;

use crate::RemoteFile;

/// Progress of an installation, for the caller to show.
#[derive(Debug)]
#[non_exhaustive]
pub enum DownloadEvent<'a> {
    /// Another process installs into this folder; this one waits for it.
    Waiting(&'a Path),
    /// The file system of this folder has no locks: only one process at a time may install into it.
    NoLocks(&'a Path),
    /// A file is requested from a URL.
    Requested {
        /// The file.
        file: &'a RemoteFile,
        /// The URL.
        url: &'a str,
    },
    /// A transfer starts.
    Started {
        /// The file.
        file: &'a RemoteFile,
        /// Bytes present already.
        length: u64,
    },
    /// Bytes arrived.
    Progress {
        /// Bytes present by now.
        length: u64,
    },
    /// An attempt failed; another one follows.
    Retry {
        /// The reason.
        error: &'a str,
        /// Time until the next attempt.
        pause: Duration,
    },
    /// The transfer ended, complete or not.
    Ended,
    /// The resumed bytes do not have the right sha256; the download starts over.
    Restarted(&'a RemoteFile),
}
