//! Files by name, in a folder, a tar, a gzipped tar or a zip.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::{DeflateDecoder, MultiGzDecoder};

use ldm_core::image::LARGEST;
use ldm_core::{Error, Result};

use crate::source::archive::ArchiveIndex;
use crate::source::{folder, tar_index, zip_index};

/// The files of a folder, a `.tar`, a `.tar.gz` or a `.zip`, sorted by name; the same names in each of the four.
///
/// Reading needs no lock: archives are read at offsets, from any number of threads.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    archive: Option<File>,
    pub(crate) files: Vec<Stored>,
    /// Entries that are no readable file or folder, each with its reason.
    pub(crate) passed_over: Vec<String>,
}

/// One file of a [`Store`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Relative path, with `/` between its parts.
    pub(crate) name: String,
    /// Size in bytes.
    pub(crate) size: u64,
    pub(super) content: Content,
}

/// Place of the bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A file of its own.
    Separate,
    /// Bytes of an archive from `offset`.
    Plain { offset: u64 },
    /// Pieces of a sparse file, with zeros between them.
    Sparse(Vec<Piece>),
    /// `length` deflated bytes of an archive from `offset`.
    Deflated { offset: u64, length: u64 },
}

/// Bytes of a sparse file: `length` of them, `at` in the file and `offset` in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Stored {
    /// File extension; empty where there is none.
    pub(crate) fn extension(&self) -> &str {
        self.split().1
    }

    /// Returns true for an extension in upper or lower case.
    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        self.extension().eq_ignore_ascii_case(extension)
    }

    /// Name without the extension.
    pub(crate) fn stem(&self) -> &str {
        self.split().0
    }

    fn split(&self) -> (&str, &str) {
        let dot = self.name.rsplit_once('.').filter(|(_, extension)| !extension.contains('/'));
        dot.unwrap_or((&self.name, ""))
    }
}

impl Store {
    /// Lists the files. Folders and archives are distinguished by their content, not by name.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let kind = fs::metadata(root).map_err(Error::io(root))?.file_type();
        if kind.is_dir() {
            let folder::Listed { files, passed_over } = folder::list(root)?;
            return Ok(Self::sorted(root, None, files, passed_over));
        }
        if !kind.is_file() {
            let found = folder::kind_of(kind);
            return Err(Error::data(root, format!("expected a folder or an archive of images, got {found}")));
        }
        let mut archive = File::open(root).map_err(Error::io(root))?;
        let head = head(&mut archive, root)?;
        let ArchiveIndex { files, passed_over } =
            if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
                zip_index::read(&archive, root)?
            } else {
                if let Some(found) = no_archive(&head) {
                    let message =
                        format!("expected a folder, a .tar, a .tar.gz or a .zip of images, got {found}");
                    return Err(Error::data(root, message));
                }
                if head.starts_with(&[0x1f, 0x8b]) {
                    archive = unpacked(archive, root)?;
                }
                tar_index::read(&archive, root)?
            };
        Ok(Self::sorted(root, Some(archive), files, passed_over))
    }

    fn sorted(
        root: &Path,
        archive: Option<File>,
        mut files: Vec<Stored>,
        mut passed_over: Vec<String>,
    ) -> Self {
        // The later of two files of one name in an archive counts, as when it is unpacked.
        files.reverse();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.dedup_by(|a, b| a.name == b.name);
        passed_over.sort();
        Self { root: root.to_owned(), archive, files, passed_over }
    }

    /// Reads the bytes of a file.
    pub(crate) fn read(&self, file: &Stored) -> Result<Vec<u8>> {
        let path = self.path(file);
        let Some(archive) = &self.archive else {
            return fs::read(&path).map_err(Error::io(&path));
        };
        // The claim of an archive must not decide how much memory is taken, and images hardly shrink.
        let most = |stored: u64| stored.saturating_mul(4).saturating_add(64 << 20).min(LARGEST);
        let check = |stored: u64| {
            if file.size <= most(stored) {
                return Ok(());
            }
            let (most, size) = (most(stored), file.size);
            let message = format!(
                "expected at most {most} bytes of a file that takes {stored} in the archive, got {size}; try unpacking it"
            );
            Err(Error::data(&path, message))
        };
        match &file.content {
            Content::Separate => unreachable!("a file of a folder"),
            Content::Plain { offset } => {
                let mut bytes = vec![0; file.size as usize];
                archive.read_exact_at(&mut bytes, *offset).map_err(Error::io(&path))?;
                Ok(bytes)
            }
            Content::Sparse(pieces) => {
                check(pieces.iter().map(|piece| piece.length).sum())?;
                let mut bytes = vec![0; file.size as usize];
                for piece in pieces {
                    let part = &mut bytes[piece.at as usize..][..piece.length as usize];
                    archive.read_exact_at(part, piece.offset).map_err(Error::io(&path))?;
                }
                Ok(bytes)
            }
            Content::Deflated { offset, length } => {
                check(*length)?;
                let mut deflated = vec![0; *length as usize];
                archive.read_exact_at(&mut deflated, *offset).map_err(Error::io(&path))?;
                let mut bytes = Vec::new();
                let found = DeflateDecoder::new(&deflated[..]).take(file.size + 1).read_to_end(&mut bytes);
                found.map_err(|error| {
                    Error::data(&path, format!("expected whole deflated data, got {error}"))
                })?;
                if bytes.len() as u64 != file.size {
                    let message = format!("expected {} bytes as the zip lists, got others", file.size);
                    return Err(Error::data(&path, message));
                }
                Ok(bytes)
            }
        }
    }

    /// Reads the bytes of a file next to an image, which has some words in it.
    pub(crate) fn read_sidecar(&self, file: &Stored) -> Result<Vec<u8>> {
        if file.size > LARGEST_SIDECAR {
            let message =
                format!("expected at most {LARGEST_SIDECAR} bytes next to an image, got {}", file.size);
            return Err(Error::data(self.path(file), message));
        }
        self.read(file)
    }

    /// Path of a file in errors.
    pub(crate) fn path(&self, file: &Stored) -> PathBuf {
        self.root.join(&file.name)
    }
}

/// Returns false for hidden files and those that macOS adds to archives.
pub(super) fn is_visible(name: &str) -> bool {
    !name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX")
}

/// Reads the first bytes of a file, and goes back to its start.
fn head(mut file: &mut File, path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    (&mut file).take(512).read_to_end(&mut head).map_err(Error::io(path))?;
    file.rewind().map_err(Error::io(path))?;
    Ok(head)
}

/// Names the kind of a file whose first bytes are those of no archive; none where they may be.
fn no_archive(head: &[u8]) -> Option<&'static str> {
    if image::guess_format(head).is_ok() {
        return Some("one image; try the folder that holds it");
    }
    if head.starts_with(b"PAR1") {
        return Some("a Parquet table; try saving its images as files");
    }
    // A tar's header has zeros after the name and at its end.
    (!head.is_empty() && !head.contains(&0) && !head.starts_with(&[0x1f, 0x8b])).then_some("a file of text")
}

/// Limit of a file next to an image in bytes.
const LARGEST_SIDECAR: u64 = 1 << 20;

/// Bytes that an unpacked archive leaves free on its disk, and between two looks at it.
const RESERVED: u64 = 1_000_000_000;
const CHECKED: u64 = 64 << 20;

/// Unpacks a gzipped archive for reads at any offset.
///
/// It goes into an unnamed temporary file: the system frees it when the process ends in any way, and its pages can
/// leave memory, so that a dataset may be larger than memory.
fn unpacked(file: File, path: &Path) -> Result<File> {
    unpack(file, path, &|unpacked| {
        let disk = rustix::fs::fstatvfs(unpacked).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    })
}

/// [`unpacked`]; `free` returns the bytes that are free on the disk of the temporary file, if they are known.
fn unpack(file: File, path: &Path, free: &dyn Fn(&File) -> Option<u64>) -> Result<File> {
    let folder = std::env::temp_dir();
    let mut unpacked = tempfile::tempfile().map_err(Error::io(&folder))?;
    // Images hardly shrink; the room is for label maps.
    let most = (1 << 30) + 200 * file.metadata().map_err(Error::io(path))?.len();
    let mut reader = MultiGzDecoder::new(file);
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|error| Error::format(path, format!("expected whole gzip data, got {error}")))?;
        if count == 0 {
            return Ok(unpacked);
        }
        length += count as u64;
        if length > most {
            let message = format!(
                "expected at most {most} bytes, 200 times the packed size, got more; try unpacking it"
            );
            return Err(Error::format(path, message));
        }
        // Other programs need the disk too, and often the folder is memory. Small archives need no look at it.
        if length / CHECKED > (length - count as u64) / CHECKED
            && let Some(free) = free(&unpacked)
            && free < RESERVED
        {
            let message = format!(
                "expected an archive that can be unpacked in {} with 1 GB left, got less after {length} bytes; try \
                 unpacking it, or setting TMPDIR to a folder on a larger disk",
                folder.display()
            );
            return Err(Error::data(path, message));
        }
        unpacked.write_all(&buffer[..count]).map_err(Error::io(&folder))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_leaves_room_on_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zeros.tar.gz");
        let mut packed =
            flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        let zeros = vec![0; 1 << 20];
        (0..65).for_each(|_| packed.write_all(&zeros).unwrap());
        packed.finish().unwrap();
        let open = || File::open(&path).unwrap();
        for free in [None, Some(RESERVED)] {
            assert_eq!(unpack(open(), &path, &|_| free).unwrap().metadata().unwrap().len(), 65 << 20);
        }
        let error = unpack(open(), &path, &|_| Some(RESERVED - 1)).unwrap_err().to_string();
        assert!(error.contains("with 1 GB left, got less after 6"), "{error}");
    }
}
