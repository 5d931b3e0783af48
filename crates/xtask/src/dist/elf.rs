//! Dynamic sections of programs and libraries.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use goblin::elf::Elf;

/// The requirements of a program or library.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ElfNeeds {
    /// Names of libraries (`DT_NEEDED`).
    pub(crate) libraries: Vec<String>,
    /// Folders in which the loader looks for them (`DT_RPATH`, `DT_RUNPATH`), with `$ORIGIN` replaced.
    pub(crate) folders: Vec<PathBuf>,
    /// Versions of symbols, such as `GLIBC_2.34`.
    pub(crate) versions: Vec<String>,
}

impl ElfNeeds {
    /// Reads them from a file.
    ///
    /// # Errors
    /// When the file cannot be read, or is no ELF file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let elf = Elf::parse(&bytes).with_context(|| format!("{}: expected an ELF file", path.display()))?;
        let origin = path.parent().unwrap_or(Path::new("."));
        let folders = elf.rpaths.iter().chain(&elf.runpaths).flat_map(|list| list.split(':'));
        let resolved = |folder: &str| match folder.strip_prefix("$ORIGIN") {
            Some(rest) => origin.join(rest.trim_start_matches('/')),
            None => PathBuf::from(folder),
        };
        let versions = elf.verneed.iter().flat_map(|section| section.iter().collect::<Vec<_>>());
        let names = versions.flat_map(|need| need.iter().map(|version| version.vna_name).collect::<Vec<_>>());
        Ok(Self {
            libraries: elf.libraries.iter().map(ToString::to_string).collect(),
            folders: folders.map(resolved).collect(),
            versions: names.filter_map(|name| elf.dynstrtab.get_at(name)).map(str::to_owned).collect(),
        })
    }
}

/// A version of the symbols of a library, such as 2.34 of `GLIBC_2.34`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SymbolVersion(Vec<u32>);

impl SymbolVersion {
    /// Returns the newest version with a prefix, such as `GLIBC_`; names without a number, such as `GLIBC_PRIVATE`, do not
    /// count.
    pub(crate) fn newest<'a>(prefix: &str, names: impl IntoIterator<Item = &'a String>) -> Option<Self> {
        let number = |name: &String| {
            let parts = name.strip_prefix(prefix)?.split('.').map(str::parse);
            parts.collect::<Result<Vec<u32>, _>>().ok().map(Self)
        };
        names.into_iter().filter_map(number).max()
    }
}

impl fmt::Display for SymbolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        let names =
            ["GLIBC_2.4", "GLIBC_2.34", "GLIBC_PRIVATE", "GLIBCXX_3.4.29", "GLIBC_2.2.5"].map(String::from);
        let newest = |prefix| SymbolVersion::newest(prefix, &names).map(|version| version.to_string());
        assert_eq!(newest("GLIBC_"), Some("2.34".into()));
        assert_eq!(newest("GLIBCXX_"), Some("3.4.29".into()));
        assert_eq!(newest("CXXABI_"), None);
    }

    #[test]
    fn this_program_is_read() {
        let needs = ElfNeeds::read(&std::env::current_exe().unwrap()).unwrap();
        assert!(needs.libraries.contains(&"libc.so.6".to_owned()), "{needs:?}");
        assert!(needs.folders.iter().any(|folder| folder.ends_with(".libtorch/torch/lib")), "{needs:?}");
        assert!(SymbolVersion::newest("GLIBC_", &needs.versions).is_some(), "{needs:?}");
        let error = ElfNeeds::read(Path::new("Cargo.toml")).unwrap_err();
        assert_eq!(error.to_string(), "Cargo.toml: expected an ELF file");
    }
}
