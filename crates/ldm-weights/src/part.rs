//! Partial downloads: `FILE.part`, with its length and hash so far.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ldm_core::{Error, Result};
use sha2::{Digest, Sha256};

/// Returns the path of the partial download of `file`.
pub(crate) fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Returns the sha256 of a file in hexadecimal digits.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    copy_hashed(&mut file, &mut io::sink()).map_err(Error::io(path))
}

fn digits(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

/// A partial download.
#[derive(Debug)]
pub(crate) struct PartialFile {
    path: PathBuf,
    file: File,
    hash: Sha256,
    length: u64,
}

impl PartialFile {
    /// Opens the partial download of `file`, with the bytes of an earlier transfer.
    pub(crate) fn open(file: &Path) -> io::Result<Self> {
        let path = part_of(file);
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
        let mut hash = Sha256::new();
        let length = if file.metadata()?.is_file() { io::copy(&mut file, &mut hash)? } else { 0 };
        Ok(Self { path, file, hash, length })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Removes all bytes.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        if self.length > 0 {
            self.file.set_len(0)?;
            self.hash = Sha256::new();
            self.length = 0;
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Returns the sha256 in hexadecimal digits.
    pub(crate) fn sha256(&self) -> String {
        digits(self.hash.clone())
    }

    /// Renames the complete file to `to`.
    pub(crate) fn finish(self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, to)
    }

    /// Removes it.
    pub(crate) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

/// Copies `from` to `to` and returns the sha256 of the bytes.
pub(crate) fn copy_hashed(from: &mut impl Read, to: &mut impl Write) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(digits(hash)),
            count => {
                hash.update(&buffer[..count]);
                to.write_all(&buffer[..count])?;
            }
        }
    }
}
