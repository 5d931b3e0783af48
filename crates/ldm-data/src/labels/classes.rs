//! Classes of images: by folder, or by a file next to the image.

use std::collections::BTreeSet;

use crate::labels::sidecar::Label;

/// Names of the classes, and the class of each image.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Classes {
    pub(crate) names: Vec<String>,
    pub(crate) of: Vec<Option<i64>>,
}

/// Creates no classes, for `count` images.
pub(crate) fn none(count: usize) -> Classes {
    Classes { names: Vec::new(), of: vec![None; count] }
}

/// Classifies images by the first folder of their names, after folders that all share; classes are sorted by name.
///
/// `None` when no image is in a folder; an error when only some are.
pub(crate) fn by_folder(names: &[&str]) -> Result<Option<Classes>, String> {
    let shared = shared_folders(names);
    let folders: Vec<_> =
        names.iter().map(|name| name[shared..].split_once('/').map(|(folder, _)| folder)).collect();
    let outside: Vec<_> = names.iter().zip(&folders).filter(|(_, folder)| folder.is_none()).collect();
    if outside.len() == names.len() {
        return Ok(None);
    }
    if let Some((name, _)) = outside.first() {
        return Err(format!(
            "expected all images in class folders, got {} of {} outside, e.g. {name}; try moving them, or classes: none",
            outside.len(),
            names.len()
        ));
    }
    Ok(Some(numbered(folders.into_iter().flatten().map(str::to_owned).collect())))
}

/// A number and a name among the labels, by the indices of their images.
#[derive(Debug, PartialEq)]
pub(crate) struct MixedLabels {
    pub(crate) number: usize,
    pub(crate) name: usize,
    pub(crate) class: String,
}

/// Classifies images by their labels: all numbers, as they are, or all names, in sorted order. Every image has one.
pub(crate) fn by_label(labels: Vec<Label>) -> Result<Classes, MixedLabels> {
    let (mut numbers, mut names) = (Vec::new(), Vec::new());
    for (index, label) in labels.into_iter().enumerate() {
        match label {
            Label::Number(number) => numbers.push((index, number)),
            Label::Name(name) => names.push((index, name)),
        }
    }
    if let (Some(&(number, _)), Some((name, class))) = (numbers.first(), names.first()) {
        return Err(MixedLabels { number, name: *name, class: class.clone() });
    }
    if numbers.is_empty() {
        return Ok(numbered(names.into_iter().map(|(_, name)| name).collect()));
    }
    let count = numbers.iter().map(|(_, number)| number + 1).max().unwrap_or(0);
    Ok(Classes {
        names: (0..count).map(|number| number.to_string()).collect(),
        of: numbers.into_iter().map(|(_, number)| Some(number)).collect(),
    })
}

fn numbered(of: Vec<String>) -> Classes {
    let names: Vec<String> = of.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let number = |name: &String| names.binary_search(name).expect("collected from these") as i64;
    Classes { of: of.iter().map(|name| Some(number(name))).collect(), names }
}

/// Length in bytes of the folders that all names share, as `train/` in `train/cat/1.png`; the folders directly above
/// the images are classes and not counted.
fn shared_folders(names: &[&str]) -> usize {
    let mut shared = 0;
    while let Some(next) = names.first().and_then(|name| name[shared..].find('/')) {
        let end = shared + next + 1;
        let prefix = &names[0][..end];
        if !names.iter().all(|name| name.starts_with(prefix) && name[end..].contains('/')) {
            break;
        }
        shared = end;
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], expected: Option<(&[&str], &[i64])>) {
        let classes = by_folder(names).unwrap();
        let expected = expected.map(|(names, of)| Classes {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            of: of.iter().copied().map(Some).collect(),
        });
        assert_eq!(classes, expected);
    }

    #[test]
    fn folders_are_classes() {
        check(&["dog/1.png", "cat/1.png", "cat/more/2.png"], Some((&["cat", "dog"], &[1, 0, 0])));
        check(&["set/train/cat/1.png", "set/train/dog/1.png"], Some((&["cat", "dog"], &[0, 1])));
        check(&["cat/1.png", "cat/2.png"], Some((&["cat"], &[0, 0])));
        check(&["1.png", "2.png"], None);
    }

    #[test]
    fn images_outside_are_refused() {
        assert_eq!(
            by_folder(&["cat/1.png", "2.png"]).unwrap_err(),
            "expected all images in class folders, got 1 of 2 outside, e.g. 2.png; try moving them, or classes: none"
        );
    }

    #[test]
    fn labels_are_numbers_or_names() {
        let numbers = by_label(vec![Label::Number(2), Label::Number(0)]).unwrap();
        assert_eq!((numbers.names.len(), numbers.of), (3, vec![Some(2), Some(0)]));
        let names = by_label(vec![Label::Name("dog".into()), Label::Name("cat".into())]).unwrap();
        assert_eq!(
            (names.names, names.of),
            (vec!["cat".to_owned(), "dog".to_owned()], vec![Some(1), Some(0)])
        );
        let mixed = by_label(vec![Label::Number(2), Label::Name("cat".into())]).unwrap_err();
        assert_eq!(mixed, MixedLabels { number: 0, name: 1, class: "cat".into() });
    }
}
