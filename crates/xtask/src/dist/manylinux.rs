//! The oldest Linux that a program runs on, by the versions of the symbols that it takes from system libraries.

use anyhow::{Context, Result};

/// The newest versions of libstdc++ in each release, and the glibc of its manylinux tag, as auditwheel's policies have them.
const RELEASES: [(&str, u32); 17] = [
    ("GLIBCXX_3.4.19", 17),
    ("GLIBCXX_3.4.22", 24),
    ("GLIBCXX_3.4.24", 27),
    ("GLIBCXX_3.4.28", 31),
    ("GLIBCXX_3.4.29", 34),
    ("GLIBCXX_3.4.30", 35),
    ("GLIBCXX_3.4.33", 39),
    ("CXXABI_1.3.7", 17),
    ("CXXABI_1.3.10", 24),
    ("CXXABI_1.3.11", 27),
    ("CXXABI_1.3.12", 31),
    ("CXXABI_1.3.13", 34),
    ("CXXABI_1.3.15", 39),
    ("GCC_4.8.0", 17),
    ("GCC_7.0.0", 27),
    ("GCC_12.0.0", 35),
    ("GCC_14.0.0", 39),
];

/// Returns the tag of a wheel with a program that needs these versions, as `manylinux_2_28_x86_64`.
///
/// # Errors
/// When a version is newer than the list.
pub(crate) fn tag(versions: &[String]) -> Result<String> {
    let mut minor = 17;
    for version in versions {
        let found = glibc(version)
            .with_context(|| format!("{version}: expected a version of RELEASES, got a newer one"))?;
        minor = minor.max(found);
    }
    Ok(format!("manylinux_2_{minor}_x86_64"))
}

/// The minor version of the oldest glibc in whose release a version of a symbol is; `None` if it is not known.
fn glibc(version: &str) -> Option<u32> {
    let (library, number) = split(version)?;
    if library == "GLIBC" {
        // 2.34, 2.2.5
        return number.get(1).copied();
    }
    let known = RELEASES.iter().filter_map(|(release, minor)| Some((split(release)?, *minor)));
    let enough = known.filter(|((name, newest), _)| *name == library && *newest >= number);
    enough.map(|(_, minor)| minor).min()
}

/// `GLIBCXX_3.4.29` as its library and numbers.
fn split(version: &str) -> Option<(&str, Vec<u32>)> {
    let (library, number) = version.rsplit_once('_')?;
    let number: Result<Vec<u32>, _> = number.split('.').map(str::parse).collect();
    Some((library, number.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_the_release_that_brought_them() {
        for (version, minor) in [
            ("GLIBC_2.2.5", Some(2)),
            ("GLIBC_2.35", Some(35)),
            ("GLIBCXX_3.4", Some(17)),
            ("GLIBCXX_3.4.25", Some(31)),
            ("GLIBCXX_3.4.29", Some(34)),
            ("CXXABI_1.3.13", Some(34)),
            ("GCC_3.0", Some(17)),
            ("GLIBCXX_3.4.99", None),
            ("ZLIB_1.2", None),
        ] {
            assert_eq!(glibc(version), minor, "{version}");
        }
    }

    #[test]
    fn the_newest_version_decides() {
        let versions = ["GLIBC_2.30", "GLIBCXX_3.4.21", "GCC_3.0"].map(String::from);
        assert_eq!(tag(&versions).unwrap(), "manylinux_2_30_x86_64");
        let error = tag(&["CXXABI_1.9".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "CXXABI_1.9: expected a version of RELEASES, got a newer one");
    }
}
