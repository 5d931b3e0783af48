//! Memory limits for reading a file's names: four times the file and 64 MB, whatever the file claims.
//!
//! Real files stay far below: their bytes are storages, which are not read here. The shares below add up to less than
//! the total in every format.

const MB: usize = 1 << 20;

/// Returns the total limit, for tests and fuzzing.
pub(crate) const fn total(file: usize) -> usize {
    64 * MB + 4 * file
}

/// Returns the limit of the values of the pickle with the tensors.
pub(crate) const fn pickle(file: usize) -> usize {
    28 * MB + file / 2 * 3
}

/// Returns the limit of the values of the small pickles of a legacy file.
pub(crate) const fn small_pickle(file: usize) -> usize {
    2 * MB + file / 8
}

/// Returns the limit of the names, shapes and offsets of the tensors of a pickle.
pub(crate) const fn tensors(file: usize) -> usize {
    12 * MB + file / 2
}

/// Returns the limit of the scalars of a torch file.
pub(crate) const fn metadata(file: usize) -> usize {
    4 * MB + file / 16
}

/// Returns the limit of an inflated pickle.
pub(crate) const fn inflated(file: usize) -> usize {
    8 * MB + file / 8
}

/// Returns the limit of all deflated tensors together, by their bytes in the file. Weights shrink by a tenth or so; zeros
/// shrink by a thousand.
pub(crate) const fn inflated_tensors(packed: usize) -> usize {
    (64 * MB).saturating_add(packed.saturating_mul(64))
}

/// Returns the limit of the header of a safetensors file, which takes up to twenty times its length when parsed.
pub(crate) const fn header(file: usize) -> usize {
    let share = file / 8;
    if share > 2 * MB { share } else { 2 * MB }
}

/// The unspent part of a share.
pub(crate) struct MemoryBudget {
    left: usize,
    what: &'static str,
}

impl MemoryBudget {
    pub(crate) fn new(bytes: usize, what: &'static str) -> Self {
        Self { left: bytes, what }
    }

    /// Spends `bytes`, before they are allocated.
    pub(crate) fn spend(&mut self, bytes: usize) -> Result<(), String> {
        let what = self.what;
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| format!("{what} take more memory than a file of this size may need"))?;
        Ok(())
    }
}
