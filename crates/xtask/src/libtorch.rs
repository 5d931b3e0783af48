//! Recognition of a suitable libtorch.

use std::fs;
use std::path::Path;

/// The version of libtorch that tch needs.
pub(crate) const VERSION: &str = "2.11.0";

/// A variant of libtorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Cpu,
    Cuda,
}

impl Variant {
    /// Returns the name in the cache's folders.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// Returns the name in messages.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Cuda => "CUDA",
        }
    }
}

/// A libtorch of a suitable version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Libtorch {
    pub(crate) version: String,
    pub(crate) set: Variant,
}

impl Libtorch {
    /// Reads a folder that `LIBTORCH` may name: `torch` of a wheel or `libtorch` of the zip.
    ///
    /// # Errors
    /// The reason why it is unsuitable, as the rest of a sentence that begins with the folder.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        if !folder.is_dir() {
            return Err("is not a folder".into());
        }
        for part in ["lib/libtorch.so", "lib/libtorch_cpu.so", "lib/libc10.so", "include"] {
            if !folder.join(part).exists() {
                return Err(format!("is not a complete libtorch: it has no {part}"));
            }
        }
        let version = version(folder).ok_or("has no version in build-version or version.py")?;
        if version.split('+').next() != Some(VERSION) {
            return Err(format!("is libtorch {version}"));
        }
        let cuda = folder.join("lib/libtorch_cuda.so").exists();
        Ok(Self { version, set: if cuda { Variant::Cuda } else { Variant::Cpu } })
    }
}

/// Returns the version from `build-version`, which the zip has and setup writes, else from the wheel's `version.py`.
pub(crate) fn version(folder: &Path) -> Option<String> {
    if let Ok(text) = fs::read_to_string(folder.join("build-version")) {
        return Some(text.trim().to_owned()).filter(|version| !version.is_empty());
    }
    let text = fs::read_to_string(folder.join("version.py")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("__version__"))?;
    let version = value.trim_matches([' ', '=', '\'', '"']);
    Some(version.to_owned()).filter(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    const WHOLE: [(&str, &str); 4] =
        [("lib/libtorch.so", ""), ("lib/libtorch_cpu.so", ""), ("lib/libc10.so", ""), ("include/x.h", "")];

    #[track_caller]
    fn check(extra: &[(&str, &str)], expected: Result<(&str, Variant), &str>) {
        let files: Vec<_> = WHOLE.iter().chain(extra).copied().collect();
        let found = Libtorch::read(folder(&files).path());
        let expected = expected.map(|(version, set)| Libtorch { version: version.into(), set });
        assert_eq!(found, expected.map_err(String::from));
    }

    #[test]
    fn a_wheel_and_a_zip_are_read() {
        check(
            &[("version.py", "x\n__version__ = '2.11.0+cu130'\ndebug = False\n")],
            Ok(("2.11.0+cu130", Variant::Cpu)),
        );
        check(&[("build-version", "2.11.0+cpu\n")], Ok(("2.11.0+cpu", Variant::Cpu)));
        check(&[("build-version", "2.11.0"), ("lib/libtorch_cuda.so", "")], Ok(("2.11.0", Variant::Cuda)));
    }

    #[test]
    fn other_versions_are_refused() {
        check(&[("version.py", "__version__ = \"2.9.1\"\n")], Err("is libtorch 2.9.1"));
        check(&[("build-version", "2.11.00")], Err("is libtorch 2.11.00"));
        check(&[], Err("has no version in build-version or version.py"));
    }

    #[test]
    fn an_incomplete_libtorch_is_refused() {
        let found = Libtorch::read(folder(&WHOLE[1..]).path());
        assert_eq!(found, Err("is not a complete libtorch: it has no lib/libtorch.so".into()));
        assert_eq!(Libtorch::read(Path::new("/nowhere/at/all")), Err("is not a folder".into()));
    }
}
