//! Finding images by the names that lists give them.

use std::collections::HashMap;

/// The numbers of names: by the name itself, by it without its ending, and, where only one image has it, by the last
/// part of either.
pub(crate) struct Names<'a> {
    whole: HashMap<&'a str, Vec<usize>>,
    /// The last parts; none where several images share one.
    last: HashMap<&'a str, Option<usize>>,
}

impl<'a> Names<'a> {
    /// `names` in order, each with its ending.
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

    /// The numbers of a name; empty where there is none.
    pub(crate) fn find(&self, name: &str) -> &[usize] {
        match (self.whole.get(name), self.last.get(name)) {
            (Some(numbers), _) => numbers,
            (None, Some(Some(number))) => std::slice::from_ref(number),
            _ => &[],
        }
    }
}

/// A name without its ending.
pub(crate) fn stem(name: &str) -> &str {
    name.rsplit_once('.').filter(|(_, ending)| !ending.contains('/')).map_or(name, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_by_what_is_theirs_alone() {
        let names = Names::of(["a/1.png", "b/1.png", "b/2.jpg", "3.png"].into_iter());
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
