//! Partial downloads: `FILE.part`.

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
    length: u64,
}

impl PartialFile {
    /// Opens the partial download of `file`, with the bytes of an earlier transfer. If no lock keeps others away
    /// (`exclusive` is false) it is one of this process alone.
    ///
    /// # Errors
    /// Also for a link to a file: in a folder of several users it could lead to another file of theirs.
    pub(crate) fn open(file: &Path, exclusive: bool) -> io::Result<Self> {
        let mut path = part_of(file);
        if !exclusive {
            path.as_mut_os_string().push(format!("-{}", std::process::id()));
        }
        let is_link = path.symlink_metadata().is_ok_and(|data| data.is_symlink());
        if is_link && path.metadata().map_or(true, |data| data.is_file()) {
            return Err(io::Error::other("expected a partial download, got a link to a file"));
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let data = file.metadata()?;
        let length = if data.is_file() { data.len() } else { 0 };
        Ok(Self { path, file, length })
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
            self.length = 0;
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Returns the sha256 in hexadecimal digits, of the file as it is on the disk: other processes or a broken disk may
    /// have changed it.
    pub(crate) fn sha256(&self) -> Result<String> {
        self.file.sync_all().map_err(Error::io(&self.path))?;
        sha256(&self.path)
    }

    /// Renames the complete file to `to`.
    pub(crate) fn finish(self, to: &Path) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::{PartialFile, part_of, sha256};

    #[test]
    fn the_hash_is_of_the_file_and_not_of_the_stream() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("net.bin");
        let mut part = PartialFile::open(&to, true).unwrap();
        part.append(b"half").unwrap();
        // Another process appends to the same file.
        let mut other = PartialFile::open(&to, true).unwrap();
        assert_eq!(other.length(), 4);
        other.append(b"other").unwrap();
        part.append(b"half").unwrap();
        let right = folder.path().join("right");
        std::fs::write(&right, b"halfhalf").unwrap();
        assert_ne!(part.sha256().unwrap(), sha256(&right).unwrap());
        assert_eq!(part.sha256().unwrap(), sha256(&part_of(&to)).unwrap());
    }

    #[test]
    fn without_locks_each_process_has_its_own_part() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("net.bin");
        let part = PartialFile::open(&to, false).unwrap();
        assert_eq!(part.path(), folder.path().join(format!("net.bin.part-{}", std::process::id())));
    }

    #[test]
    fn a_part_that_is_a_link_to_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (to, private) = (folder.path().join("net.bin"), folder.path().join("private"));
        std::fs::write(&private, b"something").unwrap();
        std::os::unix::fs::symlink(&private, part_of(&to)).unwrap();
        assert!(PartialFile::open(&to, true).is_err());
        assert_eq!(std::fs::read(&private).unwrap(), b"something");
    }
}
