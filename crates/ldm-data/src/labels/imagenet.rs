//! Classes of ImageNet: folders are synsets, of which some may be kept.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use ldm_core::{Error, Result, config, text};

use crate::labels::classes::Classes;
use crate::source::data_paths::DataPaths;

/// Classes of ImageNet, whose folders are synsets (`n01440764/n01440764_18.JPEG`).
///
/// ```yaml
/// imagenet: { sub_indices: "30-32, 151-268", synsets: index_synset.yaml, human_labels: synset_human.txt }
/// ```
///
/// CompVis `ldm/data/imagenet.py` `ImageNetBase`, with its names of keys. As there, `n06596364_9591.JPEG` is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageNetConfig {
    /// Numbers of the classes to keep: `30-32, 151`. The end of a range is excluded, as in CompVis.
    pub sub_indices: Option<String>,
    /// Keeps the numbers of the classes; otherwise those that are left are numbered from 0.
    pub keep_orig_class_label: bool,
    /// A YAML of the synset of each number (`index_synset.yaml`). Left out, folders are numbered in sorted order.
    pub synsets: Option<PathBuf>,
    /// A text file of names: lines of a synset or a number, and a name (`synset_human.txt`,
    /// `imagenet1000_clsidx_to_labels.txt`). Left out, classes are named by their synsets.
    pub human_labels: Option<PathBuf>,
}

/// An image that CompVis leaves out.
pub(crate) const LEFT_OUT: &str = "n06596364_9591.JPEG";

impl ImageNetConfig {
    /// Numbers and names the classes of folders; images of other classes have none.
    pub(crate) fn apply(&self, folders: Classes, paths: &DataPaths) -> Result<Classes> {
        let synsets = match &self.synsets {
            Some(file) => read_synsets(file, paths)?,
            None => folders.names.clone(),
        };
        let number: HashMap<&str, usize> =
            synsets.iter().enumerate().map(|(number, synset)| (synset.as_str(), number)).collect();
        let kept = match &self.sub_indices {
            Some(list) => indices(list, synsets.len())?,
            None => (0..synsets.len()).collect(),
        };
        let mut numbers = Vec::new();
        for folder in &folders.names {
            let found = number.get(folder.as_str()).copied();
            numbers.push(found.ok_or_else(|| {
                Error::expected("imagenet.synsets", format!("the folder {folder}"), "none of this name")
            })?);
        }
        // CompVis numbers the synsets that are left in sorted order (`numpy.unique`).
        let mut left: Vec<usize> = numbers.iter().copied().filter(|number| kept.contains(number)).collect();
        left.sort_by_key(|&number| &synsets[number]);
        let human = self.human_labels.as_ref().map(|file| read_names(file, paths)).transpose()?;
        let name = |number: usize| {
            let keys = [synsets[number].clone(), number.to_string()];
            let found = human.as_ref().and_then(|human| keys.iter().find_map(|key| human.get(key)));
            found.cloned().unwrap_or_else(|| synsets[number].clone())
        };
        let new: HashMap<usize, i64> = if self.keep_orig_class_label {
            left.iter().map(|&number| (number, number as i64)).collect()
        } else {
            left.iter().copied().zip(0..).collect()
        };
        let names = if self.keep_orig_class_label {
            (0..synsets.len()).map(name).collect()
        } else {
            left.into_iter().map(name).collect()
        };
        let of = folders.of.into_iter().map(|class| new.get(&numbers[class? as usize]).copied()).collect();
        Ok(Classes { names, of })
    }
}

/// Reads the synset of each number, from 0 without gaps.
fn read_synsets(file: &PathBuf, paths: &DataPaths) -> Result<Vec<String>> {
    let path = paths.resolve(file)?;
    let mut numbered: Vec<(usize, String)> =
        config::read::<HashMap<usize, String>>(&path, &[])?.into_iter().collect();
    numbered.sort();
    if let Some((place, (number, _))) =
        numbered.iter().enumerate().find(|(place, (number, _))| place != number)
    {
        return Err(Error::data(&path, format!("expected a synset of the number {place}, got {number}")));
    }
    Ok(numbered.into_iter().map(|(_, synset)| synset).collect())
}

/// Reads names by synset or number.
fn read_names(file: &PathBuf, paths: &DataPaths) -> Result<HashMap<String, String>> {
    let path = paths.resolve(file)?;
    let mut names = HashMap::new();
    for (number, line) in text::read(&path)?.lines().enumerate() {
        // A line may be of a Python dictionary: `{0: 'tench, Tinca tinca',`.
        let line = line.trim().trim_start_matches('{').trim_end_matches('}').trim();
        if line.is_empty() {
            continue;
        }
        let is_number = |key: &str| key.trim().parse::<usize>().is_ok();
        let parts = line
            .split_once(':')
            .filter(|(key, _)| is_number(key))
            .or_else(|| line.split_once(char::is_whitespace));
        let (key, name) = parts.ok_or_else(|| {
            Error::data(&path, format!("line {}: expected a synset or a number, and a name", number + 1))
        })?;
        let name = name.trim().trim_end_matches(',');
        let quoted = ['\'', '"'].iter().find_map(|&quote| name.strip_prefix(quote)?.strip_suffix(quote));
        names.insert(key.trim().to_owned(), quoted.unwrap_or(name).to_owned());
    }
    Ok(names)
}

/// Reads numbers and ranges whose end is excluded. taming-transformers `data/imagenet.py` `str_to_indices`.
fn indices(list: &str, count: usize) -> Result<BTreeSet<usize>> {
    let wrong = |part: &str| {
        Error::expected("imagenet.sub_indices", "numbers and ranges as `30-32, 151`", part.trim())
    };
    let mut found = BTreeSet::new();
    for part in list.split(',') {
        let number = |digits: &str| digits.trim().parse::<usize>().map_err(|_| wrong(part));
        let range = match part.split_once('-') {
            Some((from, to)) => number(from)?..number(to)?,
            None => number(part)?..number(part)?.saturating_add(1),
        };
        if range.is_empty() {
            return Err(wrong(part));
        }
        if range.end > count {
            let expected = format!("numbers below {count}, the number of classes");
            return Err(Error::expected("imagenet.sub_indices", expected, part.trim()));
        }
        found.extend(range);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_exclude_their_end() {
        let of = |list| indices(list, 300).map(|found| found.into_iter().collect::<Vec<_>>());
        assert_eq!(of("30-32, 5,7-9").unwrap(), [5, 7, 8, 30, 31]);
        for (list, got) in [("", ""), ("1,", ""), ("a", "a"), ("5-5", "5-5"), ("9-5", "9-5"), ("-3", "-3")] {
            let message = of(list).unwrap_err().to_string();
            let expected = "imagenet.sub_indices: expected numbers and ranges as `30-32, 151`, got ";
            assert_eq!(message, format!("{expected}{got}"), "{list}");
        }
        let message = of("299-301").unwrap_err().to_string();
        assert!(
            message.ends_with("expected numbers below 300, the number of classes, got 299-301"),
            "{message}"
        );
    }
}
