//! A file from the network: resumed, tried again, verified, put in its place.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::manifest::RemoteFile;
use super::part::Part;
use super::transfer::{Client, Failure};
use crate::progress::Printer;

/// Downloads `file` from `url` to the place `to`. `retries` attempts in a row may bring nothing before it is given up;
/// what came is kept for the next time.
///
/// # Errors
/// One sentence each for the network, the server, the disk, and bytes that are not those of `file`; those are removed.
pub(crate) fn download(
    file: &RemoteFile,
    url: &str,
    to: &Path,
    retries: u32,
    printer: Printer,
) -> anyhow::Result<()> {
    let context = || to.display().to_string();
    let mut part = Part::open(to).with_context(context)?;
    if part.length() > file.size {
        part.clear().with_context(context)?;
    }
    let client = Client::new();
    // Bytes of one attempt alone are what the server sends; of several they may be of two versions.
    let mut of_several = part.length() > 0;
    loop {
        if part.length() < file.size {
            fetch(&client, file, url, &mut part, retries, printer, &mut of_several)?;
        }
        let found = part.sha256();
        if found == file.sha256 {
            return part.finish(to).with_context(context);
        }
        if !of_several {
            part.remove().with_context(context)?;
            bail!("{url}: expected sha256 {}, found {found}; nothing was installed", file.sha256);
        }
        printer.say(&format!("{}: the part that was there does not fit; from the beginning", file.name));
        part.clear().with_context(context)?;
        of_several = false;
    }
}

/// Fetches until all is there or the patience ends.
fn fetch(
    client: &Client,
    file: &RemoteFile,
    url: &str,
    part: &mut Part,
    retries: u32,
    printer: Printer,
    of_several: &mut bool,
) -> anyhow::Result<()> {
    let mut bar = printer.bytes(file.size, part.length());
    bar.message(file.name.clone());
    let (mut most, mut idle) = (part.length(), 0);
    loop {
        let failure = match client.fetch(url, part, file.size, |length| bar.at(length)) {
            Ok(()) => {
                bar.finish();
                return Ok(());
            }
            Err(failure) => failure,
        };
        // Not after a server that began anew.
        *of_several = part.length() > 0;
        idle = if part.length() > most { 0 } else { idle + 1 };
        most = most.max(part.length());
        let error = match failure {
            Failure::Passing(error) if idle <= retries => error,
            Failure::Passing(error) | Failure::Lasting(error) => {
                bar.finish();
                let kept = part.length();
                return Err(if kept == 0 {
                    error
                } else {
                    error.context(format!(
                        "{}: {kept} of {} bytes are kept, and the next `get` goes on from there",
                        file.name, file.size
                    ))
                });
            }
        };
        let pause = Duration::from_secs(1 << idle.min(5)) / 2;
        bar.line(&format!("{error}; another attempt in {:.1} s", pause.as_secs_f64()));
        std::thread::sleep(pause);
    }
}
