//! Properties that every target checks for any bytes.

use std::alloc::System;

use cap::Cap;
use ldm_checkpoint::{Parsed, memory_limit};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Runs `read` on `bytes`. It must not panic, an allocation beyond the limit for a file of this length ends the process,
/// and every tensor must lie in the file.
pub fn check(bytes: &[u8], read: impl FnOnce(&[u8]) -> Result<Vec<Parsed>, String>) {
    let before = ALLOCATOR.allocated();
    ALLOCATOR.set_limit(before + memory_limit(bytes.len())).expect("less is in use");
    let found = read(bytes);
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
    match found {
        Ok(tensors) => tensors.iter().for_each(|tensor| check_tensor(bytes, tensor)),
        Err(message) => assert!(!message.is_empty() && !message.contains('\n'), "{message:?}"),
    }
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
