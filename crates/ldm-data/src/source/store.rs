//! Files by name, in a folder, a tar or a gzipped tar.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use ldm_core::{Error, Result};

/// The files of a folder, a `.tar` or a `.tar.gz`, sorted by name; the same names in each of the three.
///
/// Reading needs no lock: archives are read at offsets, from any number of threads.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    archive: Option<File>,
    pub(crate) files: Vec<Stored>,
}

/// One file of a [`Store`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Relative path, with `/` between its parts.
    pub(crate) name: String,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Offset in the archive.
    offset: u64,
}

impl Stored {
    /// File extension; empty where there is none.
    pub(crate) fn extension(&self) -> &str {
        self.split().1
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
    /// Lists the files. Folders and archives are distinguished by their kind, not by name.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let (archive, mut files) = if fs::metadata(root).map_err(Error::io(root))?.is_dir() {
            let mut files = Vec::new();
            list_folder(root, "", &mut files)?;
            (None, files)
        } else {
            let archive = plain(root)?;
            let files = index(&archive, root)?;
            (Some(archive), files)
        };
        files.retain(|file| is_visible(&file.name));
        // The later of two files of one name in an archive counts, as when it is unpacked.
        files.reverse();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.dedup_by(|a, b| a.name == b.name);
        Ok(Self { root: root.to_owned(), archive, files })
    }

    /// Reads the bytes of a file.
    pub(crate) fn read(&self, file: &Stored) -> Result<Vec<u8>> {
        let path = self.path(file);
        let Some(archive) = &self.archive else {
            return fs::read(&path).map_err(Error::io(&path));
        };
        let mut bytes = vec![0; file.size as usize];
        archive.read_exact_at(&mut bytes, file.offset).map_err(Error::io(&path))?;
        Ok(bytes)
    }

    /// Path of a file in errors.
    pub(crate) fn path(&self, file: &Stored) -> PathBuf {
        self.root.join(&file.name)
    }
}

/// Returns false for hidden files and those that macOS adds to archives.
fn is_visible(name: &str) -> bool {
    !name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX")
}

fn list_folder(folder: &Path, prefix: &str, files: &mut Vec<Stored>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default();
        let Some(name) = name.to_str() else {
            return Err(Error::data(&path, "expected a name in UTF-8"));
        };
        let name = format!("{prefix}{name}");
        if !is_visible(&name) {
            continue;
        }
        // Follows links, which datasets often consist of.
        let metadata = fs::metadata(&path).map_err(Error::io(&path))?;
        if metadata.is_dir() {
            list_folder(&path, &format!("{name}/"), files)?;
        } else {
            files.push(Stored { name, size: metadata.len(), offset: 0 });
        }
    }
    Ok(())
}

/// Opens an archive for reads at any offset.
///
/// A gzipped archive is unpacked once, into an unnamed temporary file: the system frees it when the process ends in any
/// way, and its pages can leave memory, so that a dataset may be larger than memory.
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
            .map_err(|error| Error::format(path, format!("expected whole gzip data, got {error}")))?;
        if count == 0 {
            return Ok(unpacked);
        }
        unpacked.write_all(&buffer[..count]).map_err(Error::io(&folder))?;
    }
}

fn index(file: &File, path: &Path) -> Result<Vec<Stored>> {
    let broken = |error: std::io::Error| Error::format(path, format!("expected a tar archive, got {error}"));
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
                format!(
                    "expected a whole archive, got {length} bytes of at least {end}, the end of `{name}`"
                ),
            ));
        }
        if entry.header().entry_type().is_file() {
            files.push(Stored { name, size, offset });
        }
    }
    // An archive ends in blocks of zeros. One truncated between two files would only seem smaller.
    if length < end.next_multiple_of(BLOCK) + BLOCK {
        return Err(Error::format(
            path,
            format!("expected a whole archive, got no end-of-archive mark at byte {length}"),
        ));
    }
    Ok(files)
}

/// Alignment of the headers and files of a tar, in bytes.
const BLOCK: u64 = 512;
