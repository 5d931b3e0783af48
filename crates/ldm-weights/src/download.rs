//! Download of a file: resumed, retried, verified.

use std::path::Path;
use std::time::Duration;

use ldm_core::{Error, Result};

use crate::part::PartialFile;
use crate::transfer::{Client, Failure};
use crate::{DownloadEvent, RemoteFile};

/// Downloads `file` from `url` to `to`. Up to `retries` consecutive attempts may make no progress; the next call
/// resumes from the bytes received, unless `exclusive` is false: then other processes may download it too.
///
/// # Errors
/// For the network, the server, the disk, and a wrong sha256; a file with a wrong sha256 is removed.
pub(crate) fn download(
    file: &RemoteFile,
    url: &str,
    to: &Path,
    exclusive: bool,
    retries: u32,
    observe: &mut dyn FnMut(DownloadEvent),
) -> Result<()> {
    let mut part = PartialFile::open(to, exclusive).map_err(Error::io(to))?;
    if part.length() > file.size {
        part.clear().map_err(Error::io(to))?;
    }
    // The bytes of several attempts may be of two versions of the file.
    let mut resumed = part.length() > 0;
    let transfer = Transfer { client: Client::new(), file, url, retries };
    loop {
        if part.length() < file.size {
            transfer.run(&mut part, &mut resumed, observe)?;
        }
        let found = part.sha256()?;
        if found == file.sha256 {
            return part.finish(to).map_err(Error::io(to));
        }
        if !resumed {
            part.remove().map_err(Error::io(to))?;
            return Err(Error::invalid(format!(
                "{url}: expected sha256 {}, got {found}; nothing was installed",
                file.sha256
            )));
        }
        observe(DownloadEvent::Restarted(file));
        part.clear().map_err(Error::io(to))?;
        resumed = false;
    }
}

/// One download.
struct Transfer<'a> {
    client: Client,
    file: &'a RemoteFile,
    url: &'a str,
    retries: u32,
}

impl Transfer<'_> {
    /// Transfers the missing bytes, in several attempts where needed.
    fn run(
        &self,
        part: &mut PartialFile,
        resumed: &mut bool,
        observe: &mut dyn FnMut(DownloadEvent),
    ) -> Result<()> {
        let Self { client, file, url, retries } = self;
        observe(DownloadEvent::Started { file, length: part.length() });
        let (mut most, mut idle) = (part.length(), 0);
        loop {
            let progress = |length| observe(DownloadEvent::Progress { length });
            let failure = match client.fetch(url, part, file.size, progress) {
                Ok(()) => {
                    observe(DownloadEvent::Ended);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            // A server without ranges starts over, from one version again.
            *resumed = part.length() > 0;
            idle = if part.length() > most { 0 } else { idle + 1 };
            most = most.max(part.length());
            let error = match failure {
                Failure::Transient(error) if idle <= *retries => error,
                Failure::Transient(error) | Failure::Permanent(error) => {
                    observe(DownloadEvent::Ended);
                    let received = part.length();
                    return Err(if received == 0 {
                        error
                    } else {
                        Error::invalid(format!(
                            "{}: received {received} of {} bytes, and the next `get` resumes there: {error}",
                            file.name, file.size
                        ))
                    });
                }
            };
            let pause = Duration::from_secs(1 << idle.min(5)) / 2;
            observe(DownloadEvent::Retry { error: &error.to_string(), pause });
            std::thread::sleep(pause);
        }
    }
}
