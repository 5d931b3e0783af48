//! The dataset trait.

use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use ldm_core::{Error, Result};

use crate::example::Example;

/// A dataset: a list of examples, any of which can be made at any time in any thread.
///
/// The trait is open: [`Loader`](crate::Loader) takes any `Arc<dyn Dataset>`. [`Dataset::len`] and [`Dataset::get`] are
/// required; the crate's page has an example.
pub trait Dataset: Send + Sync {
    /// Number of examples of an epoch.
    fn len(&self) -> usize;

    /// Returns true when there are no examples; an opened dataset has at least one.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes an example. Pure: the same index and seed give the same example; the seed decides crops, flips and the
    /// choice among several captions.
    ///
    /// # Errors
    /// [`ldm_core::Error::Data`] naming the image that cannot be read.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`].
    fn get(&self, index: usize, seed: u64) -> Result<Example>;

    /// Makes an example without its pixels, which are left empty: for callers that have latents instead. By default by
    /// [`Dataset::get`]; a dataset that can do it without decoding the image overrides it.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    ///
    /// # Panics
    /// As [`Dataset::get`].
    fn without_image(&self, index: usize, seed: u64) -> Result<Example> {
        Ok(Example { image: Vec::new(), ..self.get(index, seed)? })
    }

    /// Makes an example that follows that of `index` in its batch, drawn by the seed; by default none. See
    /// [`PriorPreservation`](crate::PriorPreservation).
    ///
    /// # Errors
    /// As [`Dataset::get`].
    ///
    /// # Panics
    /// As [`Dataset::get`].
    fn companion(&self, _index: usize, _seed: u64) -> Result<Option<Example>> {
        Ok(None)
    }

    /// Name, size, class and caption of an example. By default by [`Dataset::get`]; a dataset that can do it without
    /// decoding the image overrides it.
    ///
    /// # Errors
    /// As [`Dataset::get`]; an override reports what shows in the first bytes of the image.
    fn peek(&self, index: usize) -> Result<Peek> {
        let Example { name, size: [_, height, width], class, caption, .. } = self.get(index, 0)?;
        Ok(Peek { name, size: [width as u32, height as u32], class, caption })
    }

    /// Names of the classes; empty without classes.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// Names of the classes of boxes; empty without boxes.
    fn box_classes(&self) -> &[String] {
        &[]
    }

    /// Names of the labels of a label map; empty without label maps, or where no file names the labels.
    fn label_classes(&self) -> &[String] {
        &[]
    }

    /// Reads all label maps and checks that their labels are below `count`; returns the number of maps. A map that cannot be
    /// read is left to [`Dataset::get`]. By default there are none.
    ///
    /// # Errors
    /// [`ldm_core::Error::Data`] with the file of a map, the label and its pixel.
    fn check_labels(&self, _count: i64) -> Result<usize> {
        Ok(0)
    }

    /// Entries of the dataset's folders and archives that are no readable files (a dangling link, a FIFO, a name in
    /// another encoding), each with its path and reason. They hold no example; a strict loader refuses them.
    fn passed_over(&self) -> &[String] {
        &[]
    }

    /// Number of examples of each shard, in the order of the indices, if each rank reads its own shards.
    fn shards_by_rank(&self) -> Option<Vec<usize>> {
        None
    }

    /// Relative frequencies at which examples are drawn in training; by default they are equal. An epoch keeps its
    /// length: of `n` examples, one of weight `w` comes `n w / Σw` times on average. One pass has each example once.
    fn weights(&self) -> Option<&[f64]> {
        None
    }

    /// Name of the dataset; by default that of its type.
    fn name(&self) -> String {
        let path = std::any::type_name::<Self>();
        path.rsplit("::").next().unwrap_or(path).to_owned()
    }

    /// 64 hex digits that identify the data of a run. By default a hash of name, length and class names; a dataset of
    /// files overrides it, so that it changes when images are added, removed, renamed, resized or prepared differently.
    /// It should depend neither on the path of the dataset nor on the contents of the images.
    fn fingerprint(&self) -> String {
        fingerprint("dataset 1", &(self.name(), self.classes()), [("", self.len() as u64)])
    }
}

/// A shared dataset.
impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn get(&self, index: usize, seed: u64) -> Result<Example> {
        (**self).get(index, seed)
    }

    fn without_image(&self, index: usize, seed: u64) -> Result<Example> {
        (**self).without_image(index, seed)
    }

    fn companion(&self, index: usize, seed: u64) -> Result<Option<Example>> {
        (**self).companion(index, seed)
    }

    fn peek(&self, index: usize) -> Result<Peek> {
        (**self).peek(index)
    }

    fn classes(&self) -> &[String] {
        (**self).classes()
    }

    fn box_classes(&self) -> &[String] {
        (**self).box_classes()
    }

    fn label_classes(&self) -> &[String] {
        (**self).label_classes()
    }

    fn check_labels(&self, count: i64) -> Result<usize> {
        (**self).check_labels(count)
    }

    fn passed_over(&self) -> &[String] {
        (**self).passed_over()
    }

    fn shards_by_rank(&self) -> Option<Vec<usize>> {
        (**self).shards_by_rank()
    }

    fn weights(&self) -> Option<&[f64]> {
        (**self).weights()
    }

    fn name(&self) -> String {
        (**self).name()
    }

    fn fingerprint(&self) -> String {
        (**self).fingerprint()
    }
}

/// Refuses a dataset with entries that were [passed over](Dataset::passed_over).
///
/// # Errors
/// [`Error::Data`] with their number and the first of them.
pub fn refuse_passed_over(dataset: &dyn Dataset) -> Result<()> {
    let passed_over = dataset.passed_over();
    let Some(first) = passed_over.first() else { return Ok(()) };
    let count = passed_over.len();
    Err(Error::data(
        dataset.name(),
        format!("expected files and folders, got {count} other entries, e.g. {first}"),
    ))
}

/// Makes the first example that can be made.
///
/// # Errors
/// [`Error::Data`] with their number and the error of the first, when none can.
pub fn first_readable(dataset: &dyn Dataset, seed: u64) -> Result<Example> {
    let mut first = None;
    for index in 0..dataset.len() {
        match dataset.get(index, seed) {
            Ok(example) => return Ok(example),
            Err(error) => _ = first.get_or_insert(error),
        }
    }
    Err(none_readable(dataset, first.as_ref().map(ToString::to_string).as_deref()))
}

/// The error of a dataset none of whose examples can be made, with the error of one of them.
pub fn none_readable(dataset: &dyn Dataset, first: Option<&str>) -> Error {
    let also = first.map_or_else(String::new, |first| format!(", e.g. {first}"));
    Error::data(dataset.name(), format!("expected readable images, got none of {}{also}", dataset.len()))
}

/// Name, size, class and caption of an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peek {
    /// Name.
    pub name: String,
    /// Width and height of the stored image, before resize and crop.
    pub size: [u32; 2],
    /// Class.
    pub class: Option<i64>,
    /// Caption, the first of several.
    pub caption: Option<String>,
}

/// SHA-256 of a kind of dataset, its config, and the names and sizes of its entries.
pub(crate) fn fingerprint<'a>(
    kind: &str,
    config: &impl Serialize,
    entries: impl IntoIterator<Item = (&'a str, u64)>,
) -> String {
    let mut hash = Sha256::new();
    // Each part ends in a zero byte, which no name contains: parts cannot run into each other.
    let mut add = |part: &[u8]| {
        hash.update(part);
        hash.update([0]);
    };
    add(kind.as_bytes());
    add(serde_json::to_string(config).expect("a config of plain fields").as_bytes());
    for (name, size) in entries {
        add(name.as_bytes());
        add(size.to_string().as_bytes());
    }
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_differs_by_kind_config_names_and_sizes() {
        let of = |kind, config: &str, entries: &[(&'static str, u64)]| {
            fingerprint(kind, &config, entries.iter().copied())
        };
        let one = of("k", "c", &[("a", 1), ("b", 2)]);
        assert_eq!(one.len(), 64);
        assert_eq!(one, of("k", "c", &[("a", 1), ("b", 2)]));
        for other in [
            of("l", "c", &[("a", 1), ("b", 2)]),
            of("k", "d", &[("a", 1), ("b", 2)]),
            of("k", "c", &[("a", 1)]),
            of("k", "c", &[("a", 1), ("b", 3)]),
            of("k", "c", &[("a", 1), ("c", 2)]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_fingerprint_does_not_change_between_versions() {
        // Runs record it: a change here makes every recorded run look as if its data had changed.
        assert_eq!(
            fingerprint("kind", &"config", [("a.png", 3)]),
            "a208f2597f5aa1bacce90b558dbf6d5c7d1fd27332cefd2055d27d1fdbcaf5ef"
        );
    }
}
