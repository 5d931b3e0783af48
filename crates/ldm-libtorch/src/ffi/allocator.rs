//! The allocator of the program.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;

/// The allocator of the system for a program: a failed allocation ends it with a sentence and exit code 1, in place of an
/// abort. libtorch allocates tensors itself, and reports those that fail.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: ldm_libtorch::ExitingAllocator = ldm_libtorch::ExitingAllocator;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ExitingAllocator;

// SAFETY: the system's allocator, whose results are passed on unless they are null; then the program ends.
unsafe impl GlobalAlloc for ExitingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of the system's allocator, here and below.
        checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as `alloc`.
        checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as `alloc`.
        checked(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn checked(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() {
        exit(size);
    }
    pointer
}

/// Ends the program without memory of its own, and without destructors, which could need some.
fn exit(size: usize) -> ! {
    let mut line = [0; 200];
    let mut rest = &mut line[..];
    let _ = writeln!(
        rest,
        "error: out of memory: {size} bytes requested; try a smaller size or a smaller batch size"
    );
    let used = 200 - rest.len();
    let _ = rustix::io::write(rustix::stdio::stderr(), &line[..used]);
    signal_hook::low_level::exit(1)
}
