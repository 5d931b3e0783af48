//! Keys and values in the order in which the products read them.

use super::AttentionSize;
use crate::Level;
use crate::buffer::Buffer;

/// Keys, transposed: `[B·heads, S / width, d, width]` with a width of two vectors; keys beyond S are zero.
pub(super) struct KeyPanels {
    pub(super) buffer: Buffer,
    pub(super) width: usize,
    /// Places of a head.
    pub(super) head: usize,
    pub(super) head_size: usize,
}

impl KeyPanels {
    pub(super) fn new(level: Level, size: AttentionSize) -> Self {
        let width = 2 * level.lanes();
        let head = size.keys.next_multiple_of(width) * size.head_size;
        Self { buffer: Buffer::zeros(size.batch * size.heads * head), width, head, head_size: size.head_size }
    }

    /// The panel of a head that starts with `key`.
    #[inline(always)]
    pub(super) fn panel(&self, head: usize, key: usize) -> *const f32 {
        self.buffer.as_ptr().wrapping_add(head * self.head + key * self.head_size)
    }
}

/// Values: `[B·heads, panels, S, panel]`, panels of one to three vectors, see [`value_vectors`]; columns beyond d are
/// zero.
pub(super) struct ValuePanels {
    pub(super) buffer: Buffer,
    pub(super) lanes: usize,
    /// d, padded to whole vectors.
    pub(super) width: usize,
    /// Places of a head.
    pub(super) head: usize,
    keys: usize,
}

impl ValuePanels {
    pub(super) fn new(level: Level, size: AttentionSize) -> Self {
        let lanes = level.lanes();
        let width = size.head_size.next_multiple_of(lanes);
        let head = size.keys * width;
        let buffer = Buffer::zeros(size.batch * size.heads * head);
        Self { buffer, lanes, width, head, keys: size.keys }
    }

    /// Row `key` of the panel of `vectors` that starts with `vector`.
    #[inline(always)]
    pub(super) fn panel(&self, head: usize, vector: usize, vectors: usize, key: usize) -> *const f32 {
        let panel = vector * self.lanes * self.keys + key * vectors * self.lanes;
        self.buffer.as_ptr().wrapping_add(head * self.head + panel)
    }
}

/// Splits `vectors` into panels of 3, 2 or 1; none of 1 next to another panel, since it would use half of the registers.
#[inline(always)]
pub(super) fn value_vectors(vectors: usize) -> impl Iterator<Item = usize> {
    let mut left = vectors;
    std::iter::from_fn(move || {
        let next = match left {
            0 => return None,
            4 => 2,
            1..=3 => left,
            _ => 3,
        };
        left -= next;
        Some(next)
    })
}

/// Writes the keys of one head, `P` numbers of a key in one place of a panel: 1 for f32, 2 for bf16.
///
/// # Safety
/// `to` has room for the head's panels, of `P` numbers a place.
pub(super) unsafe fn pack_keys<T: Copy, const P: usize>(
    size: AttentionSize,
    k: &[T],
    head: usize,
    to: *mut T,
    width: usize,
) {
    let places = size.head_size.div_ceil(P);
    for key in 0..size.keys {
        let panel = key / width * width * places + key % width;
        for (column, value) in size.key(k, head, key).iter().enumerate() {
            // SAFETY: a place of this key inside the head.
            unsafe { to.add((panel + column / P * width) * P + column % P).write(*value) };
        }
    }
}

/// Writes the values of one head, those of `P` keys in one place of a panel.
///
/// # Safety
/// As [`pack_keys`].
pub(super) unsafe fn pack_values<T: Copy, const P: usize>(
    size: AttentionSize,
    v: &[T],
    head: usize,
    to: *mut T,
    lanes: usize,
) {
    let rows = size.keys.div_ceil(P);
    let mut vector = 0;
    for vectors in value_vectors(size.head_size.div_ceil(lanes)) {
        let (first, width) = (vector * lanes, vectors * lanes);
        let count = width.min(size.head_size - first);
        for key in 0..size.keys {
            let at = first * rows + key / P * width;
            for (column, value) in size.key(v, head, key)[first..][..count].iter().enumerate() {
                // SAFETY: a place of this key inside the head.
                unsafe { to.add((at + column) * P + key % P).write(*value) };
            }
        }
        vector += vectors;
    }
}

impl AttentionSize {
    /// The row of one key in k, or of its value in v.
    #[inline(always)]
    fn key<'a, T>(&self, tokens: &'a [T], head: usize, key: usize) -> &'a [T] {
        let token = (head / self.heads) * self.keys + key;
        &tokens[(token * self.heads + head % self.heads) * self.head_size..][..self.head_size]
    }
}
