//! Tars inside a tar, such as those of ILSVRC: `n01440764.tar` in `ILSVRC2012_img_train.tar`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use tar::{Archive, EntryType};

use crate::source::archive::member_name;
use crate::source::store::{Content, Stored};

/// Lists the files of the tar at `start` of a file, as if it were unpacked into a folder of its name: their places are those
/// in the outer file. Links, sparse files and further tars inside are not followed.
///
/// # Errors
/// With the inner tar, when it is damaged.
pub(super) fn read(file: &File, name: &str, start: u64, length: u64) -> io::Result<Vec<Stored>> {
    let broken = |error: io::Error| io::Error::other(format!("`{}`: {error}", name.escape_debug()));
    let folder = &name[..name.len() - ENDING.len()];
    let mut archive = Archive::new(InnerTar { file, start, length, at: 0 });
    let mut files = Vec::new();
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
            continue;
        }
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(broken(io::Error::other("a member beyond its end")));
        }
        let name = format!("{folder}/{}", member_name(&entry.path_bytes()));
        files.push(Stored { name, size, content: Content::Plain { offset: start + offset } });
    }
    Ok(files)
}

const ENDING: &str = ".tar";

/// Returns true for the name of a tar.
pub(super) fn is_tar(name: &str) -> bool {
    name.len() > ENDING.len()
        && name.as_bytes()[name.len() - ENDING.len()..].eq_ignore_ascii_case(ENDING.as_bytes())
}

/// A part of a file as a file.
struct InnerTar<'a> {
    file: &'a File,
    start: u64,
    length: u64,
    at: u64,
}

impl Read for InnerTar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.at);
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buffer[..count], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for InnerTar<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
        };
        self.at = place.ok_or_else(|| io::Error::other("a place before the start"))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tars_end_in_tar() {
        assert!(is_tar("n01440764.tar") && is_tar("a/b.TAR"));
        assert!(!is_tar(".tar") && !is_tar("a.tar.gz") && !is_tar("tar") && !is_tar("é"));
    }
}
