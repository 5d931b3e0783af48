//! Archives with the same bytes for the same files: sorted, without owners, with one date.

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// Packs a folder with its name into a `.tar.gz`, which every `tar` opens.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn pack(folder: &Path, archive: &Path, seconds: u64) -> Result<()> {
    let parent = folder.parent().context("the folder of the package has a parent")?;
    let file = File::create(archive).with_context(|| archive.display().to_string())?;
    // The header of gzip has no name and no date.
    let gzip = GzBuilder::new().write(BufWriter::new(file), Compression::best());
    let mut tar = Builder::new(gzip);
    for path in sorted(folder)? {
        let name = path.strip_prefix(parent)?;
        let data = fs::metadata(&path)?;
        let mut header = Header::new_gnu();
        header.set_mtime(seconds);
        header.set_uid(0);
        header.set_gid(0);
        if data.is_dir() {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, name, std::io::empty())?;
        } else {
            let executable = data.permissions().mode() & 0o100 != 0;
            header.set_mode(if executable { 0o755 } else { 0o644 });
            header.set_size(data.len());
            tar.append_data(&mut header, name, File::open(&path)?)?;
        }
    }
    tar.into_inner()?.finish()?.into_inner()?.sync_all().with_context(|| archive.display().to_string())
}

/// Returns a folder and all in it, each folder before its contents.
pub(crate) fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = vec![folder.to_path_buf()];
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            paths.extend(sorted(&path)?);
        } else {
            paths.push(path);
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_follow_from_the_files_alone() {
        let pack_in_order = |names: [&str; 3]| {
            let folder = tempfile::tempdir().unwrap();
            let package = folder.path().join("package");
            for name in names {
                let path = package.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, name).unwrap();
                let mode = if name == "bin/ldm" { 0o700 } else { 0o600 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
            let archive = folder.path().join("a.tar.gz");
            pack(&package, &archive, 1_700_000_000).unwrap();
            fs::read(archive).unwrap()
        };
        let bytes = pack_in_order(["b", "bin/ldm", "a"]);
        assert_eq!(bytes, pack_in_order(["a", "b", "bin/ldm"]));
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let entries: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (1_700_000_000, 0));
                format!("{:o} {}", header.mode().unwrap(), entry.path().unwrap().display())
            })
            .collect();
        assert_eq!(
            entries,
            ["755 package", "644 package/a", "644 package/b", "755 package/bin", "755 package/bin/ldm"]
        );
    }
}
