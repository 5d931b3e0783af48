//! Lookup of images by the names in lists.

use std::borrow::Cow;
use std::collections::HashMap;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Indices of images by name, by name without the extension, and, where it is unique, by the last part of either.
pub(crate) struct ImageNames<'a> {
    whole: HashMap<Cow<'a, str>, Vec<usize>>,
    /// By the last part; none where several images share it.
    last: HashMap<Cow<'a, str>, Option<usize>>,
}

impl<'a> ImageNames<'a> {
    /// Creates the lookup of `names` with their extensions, in order.
    pub(crate) fn of(names: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self { whole: HashMap::new(), last: HashMap::new() };
        for (number, name) in names.enumerate() {
            for name in [name, stem(name)] {
                found.whole.entry(composed(name)).or_default().push(number);
                let last = composed(name.rsplit('/').next().expect("a split has a first part"));
                found.last.entry(last).and_modify(|only| *only = None).or_insert(Some(number));
            }
        }
        found
    }

    /// Indices of the images of a name; empty where there is none.
    ///
    /// A name may begin with `./`, have `\` between its parts, or be absolute: then it is the longest end of it that is
    /// the whole name of an image.
    pub(crate) fn find(&self, name: &str) -> &[usize] {
        let written = composed(name);
        let slashes = written.replace('\\', "/");
        let name = slashes.trim_start_matches("./");
        let whole = |name: &str| self.whole.get(name).map(Vec::as_slice);
        if let Some(numbers) = whole(&written).or_else(|| whole(name)) {
            return numbers;
        }
        if is_absolute(name) {
            return name
                .match_indices('/')
                .find_map(|(slash, _)| whole(&name[slash + 1..]))
                .unwrap_or_default();
        }
        self.last.get(name).and_then(Option::as_ref).map(std::slice::from_ref).unwrap_or_default()
    }
}

/// Returns true for a path from the root, of Unix or Windows.
fn is_absolute(name: &str) -> bool {
    name.starts_with('/') || name.get(1..3) == Some(":/")
}

/// A name without the extension.
pub(crate) fn stem(name: &str) -> &str {
    name.rsplit_once('.').filter(|(_, extension)| !extension.contains('/')).map_or(name, |(stem, _)| stem)
}

/// Composes the characters of a name (NFC): macOS writes `é` as two of them, and lists from elsewhere as one.
pub(crate) fn composed(name: &str) -> Cow<'_, str> {
    match is_nfc_quick(name.chars()) {
        IsNormalized::Yes => Cow::Borrowed(name),
        IsNormalized::No | IsNormalized::Maybe => Cow::Owned(name.nfc().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_by_unique_names() {
        let names = ImageNames::of(["a/1.png", "b/1.png", "b/2.jpg", "3.png"].into_iter());
        for (name, expected) in [
            ("a/1.png", &[0][..]),
            ("b/1", &[1]),
            ("2.jpg", &[2]),
            ("2", &[2]),
            ("3", &[3]),
            ("1.png", &[]),
            ("1", &[]),
            ("4", &[]),
        ] {
            assert_eq!(names.find(name), expected, "{name}");
        }
    }

    #[test]
    fn names_are_found_as_other_programs_write_them() {
        let names =
            ImageNames::of(["a/1.png", "b/1.png", "2.png", "caf\u{e9}.png", "u\u{308}.png"].into_iter());
        for (name, expected) in [
            ("./a/1.png", &[0][..]),
            ("././b/1", &[1]),
            ("b\\1.png", &[1]),
            (".\\b\\1.png", &[1]),
            ("/data/set/b/1.png", &[1]),
            ("C:\\set\\a\\1.png", &[0]),
            ("/data/set/2", &[2]),
            ("/data/1.png", &[]),
            ("cafe\u{301}.png", &[3]),
            ("\u{fc}", &[4]),
        ] {
            assert_eq!(names.find(name), expected, "{name}");
        }
    }
}
