//! What there is to say of a dataset, and what is wrong with it.

use std::collections::BTreeMap;

use ldm_core::Error;
use rayon::prelude::*;

use crate::dataset::{Dataset, Peek};

/// What there is to say of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// What it is called.
    pub name: String,
    /// How many examples it has.
    pub count: usize,
    /// How many of them were looked at; the rest of this is about those.
    pub peeked: usize,
    /// Each class and how many examples it has.
    pub classes: Vec<(String, usize)>,
    /// Each size of stored images, width and height, and how many have it, the most frequent first.
    pub sizes: Vec<([u32; 2], usize)>,
    /// How many have a caption.
    pub captioned: usize,
    /// Some captions.
    pub captions: Vec<String>,
    /// What is wrong with images whose first bytes cannot be read, one sentence each.
    pub unreadable: Vec<String>,
    /// See [`Dataset::fingerprint`].
    pub fingerprint: String,
}

impl Info {
    /// Looks at the heads of at most `most` examples, evenly spread. Nothing is decoded: an image that is cut off
    /// shows in [`unreadable`] alone.
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
            if let Some(class) = class {
                classes[class as usize].1 += 1;
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
}

/// Makes every example once, on all cores, and returns what is wrong with those that cannot be made, in their order.
pub fn unreadable(dataset: &dyn Dataset) -> Vec<Error> {
    (0..dataset.len()).into_par_iter().filter_map(|index| dataset.get(index, 0).err()).collect()
}
