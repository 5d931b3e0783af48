//! What every image set can do.

use serde::Serialize;
use sha2::{Digest, Sha256};

use ldm_core::Result;

use crate::example::Example;

/// An image set: a list of examples, any of which can be made at any time in any thread.
pub trait Dataset: Send + Sync {
    /// How many examples make an epoch.
    fn len(&self) -> usize;

    /// Whether there are none; an open dataset has at least one.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes an example. Pure: the same index and seed give the same example; the seed decides crops, flips and
    /// which of several captions.
    ///
    /// # Errors
    /// [`ldm_core::Error::Data`] naming the image that cannot be read.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`].
    fn get(&self, index: usize, seed: u64) -> Result<Example>;

    /// [`Dataset::get`] for who has the image already: all but its pixels, which are left empty. A set that need not
    /// decode the image for it says so by a method of its own.
    ///
    /// # Errors
    /// As [`Dataset::get`].
    ///
    /// # Panics
    /// As [`Dataset::get`].
    fn without_image(&self, index: usize, seed: u64) -> Result<Example> {
        Ok(Example { image: Vec::new(), ..self.get(index, seed)? })
    }

    /// What is known of an example without decoding it.
    ///
    /// # Errors
    /// As [`Dataset::get`], where it shows in the first bytes of the image.
    fn peek(&self, index: usize) -> Result<Peek>;

    /// The names of the classes; empty when the set has none.
    fn classes(&self) -> &[String];

    /// The names of the classes of boxes; empty when the set has none.
    fn box_classes(&self) -> &[String] {
        &[]
    }

    /// The names of a label map's labels; empty when the set has none, or no file names them.
    fn label_classes(&self) -> &[String] {
        &[]
    }

    /// How many examples each shard has, in the order of the indices, where each rank is to read shards of its own.
    fn shards_by_rank(&self) -> Option<Vec<usize>> {
        None
    }

    /// What to call the set.
    fn name(&self) -> String;

    /// 64 hex digits that change when images are added, removed, renamed or resized, or when they are prepared
    /// otherwise. It does not depend on where the set lies, nor on the images' contents.
    fn fingerprint(&self) -> String;
}

/// What is known of an example without decoding it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peek {
    /// What it is called.
    pub name: String,
    /// Width and height of the stored image, before it is resized or cropped.
    pub size: [u32; 2],
    /// Its class.
    pub class: Option<i64>,
    /// Its caption, the first if it has several.
    pub caption: Option<String>,
}

/// SHA-256 of a kind of dataset, its config, and the names and sizes of what is in it.
pub(crate) fn fingerprint<'a>(
    kind: &str,
    config: &impl Serialize,
    entries: impl IntoIterator<Item = (&'a str, u64)>,
) -> String {
    let mut hash = Sha256::new();
    // Each part ends in a zero byte, which no name holds: parts cannot run into each other.
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
    fn a_fingerprint_tells_kinds_configs_names_and_sizes_apart() {
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
