//! Members of a zip.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ldm_core::{Error, Result};
use zip::{CompressionMethod, ZipArchive};

use crate::source::archive::{ArchiveIndex, Links, joined, member_name};
use crate::source::store::{Content, Stored};

/// Limit of the target of a link, in bytes.
const TARGET: u64 = 4096;

/// Lists the files of a zip, stored or deflated. Symbolic links are followed inside the archive.
pub(super) fn read(file: &File, path: &Path) -> Result<ArchiveIndex> {
    let broken = |error: zip::result::ZipError| Error::format(path, format!("expected a zip, got {error}"));
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut archive = ZipArchive::new(file).map_err(broken)?;
    let mut index = ArchiveIndex::default();
    let mut links = Links::new();
    for number in 0..archive.len() {
        let member = archive.by_index_raw(number).map_err(broken)?;
        // Without its flag a name is in code page 437, which hardly any program means: UTF-8 where it can be.
        let name = match std::str::from_utf8(member.name_raw()) {
            Ok(name) => member_name(name.as_bytes()),
            Err(_) => member_name(member.name().map_err(broken)?.as_bytes()),
        };
        if member.is_dir() {
            continue;
        }
        let (size, deflated) = (member.size(), member.compressed_size());
        let method = member.compression();
        let (encrypted, is_link) = (member.encrypted(), member.is_symlink());
        let offset = member.data_start().ok_or_else(|| Error::format(path, "expected a zip, got no data"))?;
        drop(member);
        if offset.checked_add(deflated).is_none_or(|end| end > length) {
            let message = format!(
                "expected a whole zip, got {length} bytes, fewer than `{}` needs",
                name.escape_debug()
            );
            return Err(Error::format(path, message));
        }
        let mut pass_over =
            |reason: &str| index.passed_over.push(format!("{}/{name}: {reason}", path.display()));
        if encrypted {
            pass_over("expected a file without a password, got an encrypted one");
            continue;
        }
        if is_link {
            let mut target = String::new();
            let member = archive.by_index(number).map_err(broken)?;
            member.take(TARGET).read_to_string(&mut target).map_err(Error::io(path))?;
            match joined(&name, &target) {
                Some(target) => _ = links.insert(name, target),
                None => pass_over("expected a link inside the archive, got one that leaves it"),
            }
            continue;
        }
        let content = match method {
            CompressionMethod::Stored => Content::Plain { offset },
            CompressionMethod::Deflated => Content::Deflated { offset, length: deflated },
            other => {
                pass_over(&format!("expected a stored or deflated file, got {other}"));
                continue;
            }
        };
        let size = if method == CompressionMethod::Stored { deflated } else { size };
        index.files.push(Stored { name, size, content });
    }
    index.follow(&links, &path.display().to_string());
    Ok(index)
}
