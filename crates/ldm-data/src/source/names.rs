//! Lookup of images by the names in lists.

use std::collections::HashMap;

/// Indices of images by name, by name without the extension, and, where it is unique, by the last part of either.
pub(crate) struct ImageNames<'a> {
    whole: HashMap<&'a str, Vec<usize>>,
    /// By the last part; none where several images share it.
    last: HashMap<&'a str, Option<usize>>,
}

impl<'a> ImageNames<'a> {
    /// Creates the lookup of `names` with their extensions, in order.
    pub(crate) fn of(names: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self { whole: HashMap::new(), last: HashMap::new() };
        for (number, name) in names.enumerate() {
            for name in [name, stem(name)] {
                found.whole.entry(name).or_default().push(number);
                let last = name.rsplit('/').next().expect("a split has a first part");
                found.last.entry(last).and_modify(|only| *only = None).or_insert(Some(number));
            }
        }
        found
    }

    /// Indices of the images of a name; empty where there is none.
    pub(crate) fn find(&self, name: &str) -> &[usize] {
        match (self.whole.get(name), self.last.get(name)) {
            (Some(numbers), _) => numbers,
            (None, Some(Some(number))) => std::slice::from_ref(number),
            _ => &[],
        }
    }
}

/// A name without the extension.
pub(crate) fn stem(name: &str) -> &str {
    name.rsplit_once('.').filter(|(_, extension)| !extension.contains('/')).map_or(name, |(stem, _)| stem)
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
}
