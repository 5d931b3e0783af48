//! Properties that the targets check for any bytes.

use std::alloc::System;
use std::path::PathBuf;

use cap::Cap;
use ldm_checkpoint::{Parsed, memory_limit};
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Runs `read`, the reader of a weight file, on `bytes` as [`bounded`] does; every tensor must lie in the file.
pub fn check(bytes: &[u8], read: impl FnOnce(&[u8]) -> Result<Vec<Parsed>, String>) {
    let one_line = |message: &String| assert!(!message.contains('\n'), "{message:?}");
    if let Some(tensors) = bounded(bytes.len(), || read(bytes).inspect_err(one_line)) {
        tensors.iter().for_each(|tensor| check_tensor(bytes, tensor));
    }
}

/// Runs `read` on a file of `length` bytes. It must not panic, an allocation beyond the limit for a file of this length
/// ends the process, and an error has a message. Returns the result, if there is one.
pub fn bounded<T, E: ToString>(length: usize, read: impl FnOnce() -> Result<T, E>) -> Option<T> {
    let before = ALLOCATOR.allocated();
    ALLOCATOR.set_limit(before + memory_limit(length)).expect("less is in use");
    let found = read().map_err(|error| error.to_string());
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
    found.inspect_err(|message| assert!(!message.is_empty())).ok()
}

fn check_tensor(bytes: &[u8], Parsed { name, info, place, converted }: &Parsed) {
    assert!(place.start <= place.end && place.end <= bytes.len(), "{name}: {place:?} of {}", bytes.len());
    let count = info.shape.iter().try_fold(1_i64, |all, each| all.checked_mul(*each));
    let count = count.expect("a checked shape");
    assert!(count >= 0 && info.shape.iter().all(|each| *each >= 0), "{name}: {:?}", info.shape);
    // Elements share bytes only in an expanded tensor, which has its own limit. All deflated tensors together have at
    // most 64 times their bytes in the file and 64 MB, a sparse one at most four times its values, and unsigned integers
    // become twice as wide.
    let size = count as usize * info.kind.elt_size_in_bytes();
    let most = if *converted { 256 * (bytes.len() + (1 << 20)) } else { (2 * place.len()).max(32 << 20) };
    assert!(size <= most, "{name}: {size} bytes at {place:?}");
}

/// A folder in memory for readers that open files.
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    pub fn new() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").expect("a file system in memory"))
    }

    /// Path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("memory for a file");
        path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}
