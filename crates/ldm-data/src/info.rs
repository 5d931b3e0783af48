//! Summary of a dataset, and its unreadable images.

use std::collections::BTreeMap;

use ldm_core::Error;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::dataset::{Dataset, Peek};

/// Summary of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Name.
    pub name: String,
    /// Number of examples.
    pub count: usize,
    /// Number of examples that were read; the fields below are about these.
    pub peeked: usize,
    /// Each class and its number of examples.
    pub classes: Vec<(String, usize)>,
    /// Each size of stored images, width and height, and its number of images, the most frequent first.
    pub sizes: Vec<([u32; 2], usize)>,
    /// Number of examples with a caption.
    pub captioned: usize,
    /// Some captions.
    pub captions: Vec<String>,
    /// Errors of images whose first bytes cannot be read.
    pub unreadable: Vec<String>,
    /// See [`Dataset::fingerprint`].
    pub fingerprint: String,
}

impl Info {
    /// Reads the heads of at most `most` evenly spaced examples. Nothing is decoded: only [`unreadable`] finds
    /// truncated images.
    pub fn of(dataset: &dyn Dataset, most: usize) -> Self {
        let count = dataset.len();
        let peeked = count.min(most);
        let peeks: Vec<_> = (0..peeked)
            .into_par_iter()
            .map(|k| dataset.peek((k as u128 * count as u128 / peeked as u128) as usize))
            .collect();
        let mut classes: Vec<_> = dataset.classes().iter().map(|name| (name.clone(), 0)).collect();
        let mut sizes: BTreeMap<[u32; 2], usize> = BTreeMap::new();
        let (mut captioned, mut captions, mut unreadable) = (0, Vec::new(), Vec::new());
        for peek in peeks {
            let Peek { size, class, caption, .. } = match peek {
                Ok(peek) => peek,
                Err(error) => {
                    unreadable.push(error.to_string());
                    continue;
                }
            };
            *sizes.entry(size).or_default() += 1;
            if let Some(class) = class
                && let Some((_, count)) = classes.get_mut(class as usize)
            {
                *count += 1;
            }
            captioned += usize::from(caption.is_some());
            captions.extend(caption.filter(|_| captions.len() < 8));
        }
        let mut sizes: Vec<_> = sizes.into_iter().collect();
        sizes.sort_by_key(|&(size, count)| (std::cmp::Reverse(count), size));
        Self {
            name: dataset.name(),
            count,
            peeked,
            classes,
            sizes,
            captioned,
            captions,
            unreadable,
            fingerprint: dataset.fingerprint(),
        }
    }

    /// Writes the summary as a JSON object, without the unreadable images.
    pub fn to_json(&self) -> Map<String, Value> {
        let classes = self.classes.iter().map(|(name, count)| json!({"name": name, "count": count}));
        let size = |&([width, height], count): &([u32; 2], usize)| json!({"width": width, "height": height, "count": count});
        Map::from_iter([
            ("name".to_owned(), json!(self.name)),
            ("count".to_owned(), json!(self.count)),
            ("classes".to_owned(), classes.collect()),
            ("sizes".to_owned(), self.sizes.iter().map(size).collect()),
            ("captioned".to_owned(), json!(self.captioned)),
            ("captions".to_owned(), json!(self.captions)),
            ("fingerprint".to_owned(), json!(self.fingerprint)),
        ])
    }
}

/// Makes every example once, on all cores, and returns the errors of those that cannot be made, in order.
pub fn unreadable(dataset: &dyn Dataset) -> Vec<Error> {
    (0..dataset.len()).into_par_iter().filter_map(|index| dataset.get(index, 0).err()).collect()
}
