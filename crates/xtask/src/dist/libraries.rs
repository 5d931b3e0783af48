//! The libraries of libtorch that the program needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::elf::{ElfNeeds, SymbolVersion};

/// Libraries of every Linux with glibc and a C++ runtime.
const OF_THE_SYSTEM: [&str; 9] = [
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
    "libutil.so.1",
];

/// The closure of a program's needs.
#[derive(Debug)]
pub(crate) struct LibraryClosure {
    /// Libraries of libtorch, by name.
    pub(crate) libraries: BTreeMap<String, PathBuf>,
    pub(crate) glibc: SymbolVersion,
    pub(crate) libstdcxx: SymbolVersion,
}

impl LibraryClosure {
    /// Follows the needs of a program through the libraries of libtorch in `lib`.
    ///
    /// # Errors
    /// When a library is neither there nor one of the system, or a file cannot be read.
    pub(crate) fn of(program: &Path, lib: &Path) -> Result<Self> {
        let (libraries, versions) = follow(program, lib)?;
        let newest = |prefix| SymbolVersion::newest(prefix, &versions);
        let (Some(glibc), Some(libstdcxx)) = (newest("GLIBC_"), newest("GLIBCXX_")) else {
            bail!("{}: expected symbols of glibc and libstdc++, got none", program.display());
        };
        Ok(Self { libraries, glibc, libstdcxx })
    }
}

/// Returns the libraries of libtorch that a program needs, by name, and the versions of the symbols of all files.
fn follow(program: &Path, lib: &Path) -> Result<(BTreeMap<String, PathBuf>, Vec<String>)> {
    let mut libraries = BTreeMap::new();
    let mut versions = Vec::new();
    let mut open = vec![program.to_path_buf()];
    while let Some(file) = open.pop() {
        let needs = ElfNeeds::read(&file)?;
        versions.extend(needs.versions);
        for name in needs.libraries {
            if OF_THE_SYSTEM.contains(&name.as_str()) || libraries.contains_key(&name) {
                continue;
            }
            let places = needs.folders.iter().map(PathBuf::as_path).chain([lib]);
            let Some(path) = places.map(|folder| folder.join(&name)).find(|path| path.exists()) else {
                bail!(
                    "{}: expected {name} in {}, got none; try `cargo xtask setup --cpu`",
                    file.display(),
                    lib.display()
                );
            };
            libraries.insert(name, path.clone());
            open.push(path);
        }
    }
    Ok((libraries, versions))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        // The program of the tests needs nothing but the system's libraries; a renamed one is missing.
        let folder = tempfile::tempdir().unwrap();
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let program = folder.path().join("program");
        fs::write(&program, &own).unwrap();
        let (libraries, versions) = follow(&program, folder.path()).unwrap();
        assert!(libraries.is_empty() && !versions.is_empty(), "{libraries:?} {versions:?}");
        let place = own.windows(11).position(|bytes| bytes == b"libgcc_s.so").unwrap();
        let mut renamed = own;
        renamed[place..place + 6].copy_from_slice(b"libxyz");
        fs::write(&program, renamed).unwrap();
        let error = follow(&program, folder.path()).unwrap_err().to_string();
        assert!(error.contains("expected libxyz_s.so.1 in"), "{error}");
    }
}
