//! NameList of images in a file of tensors.

use std::borrow::Cow;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use tch::{Kind, Tensor};

use crate::embedding_index::{integers, shape};

/// `[bytes]` u8: the names in UTF-8, one after the other.
const NAMES: &str = "names";
/// `[N]` i64: the end of each name.
const NAME_ENDS: &str = "name_ends";

/// A list of names under construction.
#[derive(Debug, Default)]
pub(crate) struct NameList {
    bytes: Vec<u8>,
    ends: Vec<i64>,
}

impl NameList {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Appends a name; an empty one becomes its number.
    pub(crate) fn push(&mut self, name: &str) {
        match name {
            "" => self.bytes.extend(self.ends.len().to_string().bytes()),
            name => self.bytes.extend(name.bytes()),
        }
        self.ends.push(self.bytes.len() as i64);
    }

    /// The same names in another order.
    pub(crate) fn reordered(&self, order: &[i64]) -> Self {
        let mut sorted =
            Self { bytes: Vec::with_capacity(self.bytes.len()), ends: Vec::with_capacity(self.ends.len()) };
        for row in order.iter().map(|row| *row as usize) {
            let start = if row == 0 { 0 } else { self.ends[row - 1] };
            sorted.bytes.extend_from_slice(&self.bytes[start as usize..self.ends[row] as usize]);
            sorted.ends.push(sorted.bytes.len() as i64);
        }
        sorted
    }

    pub(crate) fn tensors(&self) -> [(String, Tensor); 2] {
        [(NAMES.into(), Tensor::from_slice(&self.bytes)), (NAME_ENDS.into(), Tensor::from_slice(&self.ends))]
    }
}

/// Checks that a file has `count` names.
pub(crate) fn check_names(checkpoint: &Checkpoint, count: usize) -> Result<()> {
    let [bytes] = shape(checkpoint, NAMES, Kind::Uint8)?;
    let [names] = shape(checkpoint, NAME_ENDS, Kind::Int64)?;
    let ends = integers(checkpoint.bytes(NAME_ENDS).unwrap_or_default());
    if names != count || !are_ends(ends, bytes) {
        let message = format!("expected names of {count} images, got damaged ones");
        return Err(Error::format(checkpoint.path(), message));
    }
    Ok(())
}

/// True for the ends of consecutive ranges that cover `0..length`.
pub(crate) fn are_ends(ends: impl Iterator<Item = i64> + Clone, length: usize) -> bool {
    let ordered = std::iter::once(0).chain(ends.clone()).zip(ends.clone()).all(|(start, end)| start <= end);
    ordered && ends.last() == i64::try_from(length).ok()
}

/// The name of an image in a checked file.
pub(crate) fn name(checkpoint: &Checkpoint, index: usize) -> Cow<'_, str> {
    let ends = checkpoint.bytes(NAME_ENDS).expect("checked names");
    let end = |index: usize| {
        let at = &ends[index * size_of::<i64>()..];
        integers(at).next().expect("an index below the number of images") as usize
    };
    let start = if index == 0 { 0 } else { end(index - 1) };
    String::from_utf8_lossy(&checkpoint.bytes(NAMES).expect("checked names")[start..end(index)])
}
