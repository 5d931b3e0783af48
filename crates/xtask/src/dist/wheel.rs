//! The Python wheel: the module of `crates/ldm-python` and the program.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::elf::ElfNeeds;
use super::{build, licenses, manylinux, metadata, packages_folder, sbom};
use crate::checkout::Checkout;

const ENTRY_POINTS: &str = "[console_scripts]\nldm = ldm._launch:main\n";

/// A file of the wheel.
struct WheelFile {
    path: String,
    data: Vec<u8>,
    executable: bool,
}

impl WheelFile {
    fn new(path: String, data: impl Into<Vec<u8>>) -> Self {
        Self { path, data: data.into(), executable: false }
    }

    /// Reads a file for `path`.
    fn read(path: String, from: &Path) -> Result<Self> {
        let data = fs::read(from).with_context(|| from.display().to_string())?;
        Ok(Self::new(path, data))
    }

    /// The line in RECORD.
    fn record(&self) -> String {
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(&self.data));
        format!("{},sha256={digest},{}\n", self.path, self.data.len())
    }
}

/// Builds the program, packs it with the module, and returns the path of the wheel. Equal files give equal bytes.
///
/// # Errors
/// When the build fails, or a file is missing or cannot be written.
pub(crate) fn make(checkout: &Checkout) -> Result<PathBuf> {
    let program = build::program(checkout)?;
    let packages = metadata::packages(checkout.root())?;
    let version = metadata::version(&packages)?;
    let licenses = licenses::of_crates(&packages)?;
    // Without libraries: torch is a package of its own.
    let sbom = format!("{:#}\n", sbom::document(version, &packages, &[]));
    let info = format!("ldm-{version}.dist-info");
    let documents = [
        WheelFile::new(format!("{info}/licenses/licenses-of-crates.txt"), licenses),
        WheelFile::new(format!("{info}/sboms/ldm.cdx.json"), sbom),
    ];
    write(checkout.root(), &program, version, documents, &packages_folder(checkout)?)
}

/// Writes the wheel of a program into a folder.
fn write(
    root: &Path,
    program: &Path,
    version: &str,
    documents: impl IntoIterator<Item = WheelFile>,
    folder: &Path,
) -> Result<PathBuf> {
    let tag = format!("py3-none-{}", manylinux::tag(&ElfNeeds::read(program)?.versions)?);
    let files = files(root, program, version, &tag, documents)?;
    let path = folder.join(format!("ldm-{version}-{tag}.whl"));
    fs::create_dir_all(folder)?;
    let part = path.with_extension("part");
    let archive = File::create(&part).with_context(|| part.display().to_string())?;
    pack(&files, archive).with_context(|| part.display().to_string())?;
    fs::rename(&part, &path)?;
    Ok(path)
}

/// The files in the order of the archive: the metadata last, as the format recommends, and RECORD at the end.
fn files(
    root: &Path,
    program: &Path,
    version: &str,
    tag: &str,
    documents: impl IntoIterator<Item = WheelFile>,
) -> Result<Vec<WheelFile>> {
    let package = root.join("crates/ldm-python");
    let mut files = modules(&package)?;
    let binary = WheelFile::read("ldm/bin/ldm".into(), program)?;
    files.push(WheelFile { executable: true, ..binary });
    let info = format!("ldm-{version}.dist-info");
    files.push(WheelFile::read(format!("{info}/licenses/LICENSE"), &root.join("LICENSE"))?);
    files.extend(documents);
    let [header, readme] = ["METADATA", "README.md"].map(|name| {
        let path = package.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    });
    let metadata = format!("{}Version: {version}\n\n{}", header?, readme?);
    files.push(WheelFile::new(format!("{info}/METADATA"), metadata));
    files.push(WheelFile::new(format!("{info}/entry_points.txt"), ENTRY_POINTS));
    // A program belongs into the folder of platforms, where torch is too.
    let wheel =
        format!("Wheel-Version: 1.0\nGenerator: cargo xtask dist\nRoot-Is-Purelib: false\nTag: {tag}\n");
    files.push(WheelFile::new(format!("{info}/WHEEL"), wheel));
    let record: String = files.iter().map(WheelFile::record).collect();
    files.push(WheelFile::new(format!("{info}/RECORD"), format!("{record}{info}/RECORD,,\n")));
    Ok(files)
}

/// The Python files, sorted.
fn modules(package: &Path) -> Result<Vec<WheelFile>> {
    let folder = package.join("ldm");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().into_string().ok().context("a file name of the package")?;
        // Not the caches of Python and of editors.
        if name == "py.typed" || Path::new(&name).extension().is_some_and(|extension| extension == "py") {
            names.push(name);
        }
    }
    names.sort();
    ensure!(names.iter().any(|name| name == "__init__.py"), "{}: expected a package", folder.display());
    names.iter().map(|name| WheelFile::read(format!("ldm/{name}"), &folder.join(name))).collect()
}

fn pack(files: &[WheelFile], archive: File) -> Result<()> {
    let mut zip = ZipWriter::new(archive);
    for file in files {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(9))
            // Neither the time nor the umask of the build.
            .last_modified_time(DateTime::default())
            .unix_permissions(if file.executable { 0o755 } else { 0o644 });
        zip.start_file(&file.path, options)?;
        zip.write_all(&file.data)?;
    }
    zip.finish()?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn two_wheels_have_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let [first, second] =
            ["a", "b"].map(|name| write(&root(), &program, "1.2.3", [], &folder.path().join(name)).unwrap());
        assert_eq!(first.file_name(), second.file_name());
        assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn every_file_is_in_the_record() {
        let files = files(&root(), &std::env::current_exe().unwrap(), "1.2.3", "py3-none-any", []).unwrap();
        let record = files.last().unwrap();
        assert_eq!(record.path, "ldm-1.2.3.dist-info/RECORD");
        let lines: Vec<&str> = std::str::from_utf8(&record.data).unwrap().lines().collect();
        assert_eq!(lines.len(), files.len());
        for (file, line) in files.iter().zip(&lines) {
            assert_eq!(line.split(',').next(), Some(file.path.as_str()));
        }
        let empty = WheelFile::new("a".into(), "");
        assert_eq!(empty.record(), "a,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n");
        let binary = files.iter().find(|file| file.path == "ldm/bin/ldm").unwrap();
        assert!(binary.executable);
    }
}
