//! Named files, wherever they lie: in a folder, in a tar, in a gzipped tar.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use ldm_core::{Error, Result};

/// The files of a folder, a `.tar` or a `.tar.gz`, sorted by name; the same names in each of the three.
///
/// Reading needs no lock: archives are read at offsets, from as many threads as one likes.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    archive: Option<File>,
    pub(crate) files: Vec<Stored>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Relative, its parts joined by `/`.
    pub(crate) name: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Where it begins in the archive.
    offset: u64,
}

impl Stored {
    /// What comes after the last dot of the file's own name; empty where there is none.
    pub(crate) fn ending(&self) -> &str {
        self.split().1
    }

    /// The name without its ending.
    pub(crate) fn stem(&self) -> &str {
        self.split().0
    }

    fn split(&self) -> (&str, &str) {
        let dot = self.name.rsplit_once('.').filter(|(_, ending)| !ending.contains('/'));
        dot.unwrap_or((&self.name, ""))
    }
}

impl Store {
    /// Lists what is there; folder or archive is told by what the path is, not by its name.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let (archive, mut files) = if fs::metadata(root).map_err(Error::io(root))?.is_dir() {
            let mut files = Vec::new();
            walk(root, "", &mut files)?;
            (None, files)
        } else {
            let archive = plain(root)?;
            let files = index(&archive, root)?;
            (Some(archive), files)
        };
        files.retain(|file| is_visible(&file.name));
        // Of two files of one name in an archive the later counts, as when it is unpacked.
        files.reverse();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.dedup_by(|a, b| a.name == b.name);
        Ok(Self { root: root.to_owned(), archive, files })
    }

    /// The bytes of a file.
    pub(crate) fn read(&self, file: &Stored) -> Result<Vec<u8>> {
        let path = self.path(file);
        let Some(archive) = &self.archive else {
            return fs::read(&path).map_err(Error::io(&path));
        };
        let mut bytes = vec![0; file.size as usize];
        archive.read_exact_at(&mut bytes, file.offset).map_err(Error::io(&path))?;
        Ok(bytes)
    }

    /// What to call a file in an error.
    pub(crate) fn path(&self, file: &Stored) -> PathBuf {
        self.root.join(&file.name)
    }
}

/// Hidden files, and what archivers of some systems add, are not looked at.
fn is_visible(name: &str) -> bool {
    !name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX")
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<Stored>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default();
        let Some(name) = name.to_str() else {
            return Err(Error::data(&path, "the name is not UTF-8"));
        };
        let name = format!("{prefix}{name}");
        if !is_visible(&name) {
            continue;
        }
        // Follows links: image sets are often made of them.
        let metadata = fs::metadata(&path).map_err(Error::io(&path))?;
        if metadata.is_dir() {
            walk(&path, &format!("{name}/"), files)?;
        } else {
            files.push(Stored { name, size: metadata.len(), offset: 0 });
        }
    }
    Ok(())
}

/// The archive as a file one can read anywhere in.
///
/// A gzipped one is unpacked once, into a temporary file without a name: the system takes it back when the process
/// ends, however it ends, and its pages can leave memory, which a set larger than memory needs.
fn plain(path: &Path) -> Result<File> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut magic = Vec::new();
    (&file).take(2).read_to_end(&mut magic).map_err(Error::io(path))?;
    file.rewind().map_err(Error::io(path))?;
    if magic != [0x1f, 0x8b] {
        return Ok(file);
    }
    let folder = std::env::temp_dir();
    let mut unpacked = tempfile::tempfile().map_err(Error::io(&folder))?;
    let mut reader = MultiGzDecoder::new(file);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|error| Error::format(path, format!("damaged or truncated gzip data: {error}")))?;
        if count == 0 {
            return Ok(unpacked);
        }
        unpacked.write_all(&buffer[..count]).map_err(Error::io(&folder))?;
    }
}

fn index(file: &File, path: &Path) -> Result<Vec<Stored>> {
    let broken = |error: std::io::Error| Error::format(path, format!("not a readable tar archive: {error}"));
    let length = file.metadata().map_err(Error::io(path))?.len();
    (&mut &*file).rewind().map_err(Error::io(path))?;
    let mut archive = tar::Archive::new(file);
    let mut files = Vec::new();
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let (offset, size) = (entry.raw_file_position(), entry.size());
        end = offset + size;
        if end > length {
            return Err(Error::format(
                path,
                format!("truncated: `{name}` ends at byte {end}, the file at {length}"),
            ));
        }
        if entry.header().entry_type().is_file() {
            files.push(Stored { name, size, offset });
        }
    }
    // An archive ends in blocks of zeros. One cut off between two files would only look smaller.
    if length < end.next_multiple_of(BLOCK) + BLOCK {
        return Err(Error::format(
            path,
            format!("truncated: the end-of-archive mark is missing at byte {length}"),
        ));
    }
    Ok(files)
}

/// Headers and files of a tar begin at multiples of this many bytes.
const BLOCK: u64 = 512;
