//! Aligned and reused memory.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::thread::LocalKey;

/// A cache line.
const LINE: usize = 64;
/// A huge page. With pages of 4 KB, transformed weights cost more time in address translation than in reading.
const HUGE_PAGE: usize = 2 << 20;

/// f32 values that start at a cache line, and at a huge page if they fill one.
pub(crate) struct Buffer {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: the memory is owned, as a Vec's.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Creates a buffer of `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self { start: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the size is not zero. The alignment is a cache line at least.
        #[allow(clippy::cast_ptr_alignment)]
        let start = NonNull::new(unsafe { alloc(layout) }.cast::<f32>());
        let start = start.unwrap_or_else(|| handle_alloc_error(layout));
        if layout.align() == HUGE_PAGE {
            use_huge_pages(start.as_ptr().cast(), layout.size());
        }
        // SAFETY: `len` values were allocated.
        unsafe { start.as_ptr().write_bytes(0, len) };
        Self { start, len }
    }

    fn layout(len: usize) -> Layout {
        let bytes = len * size_of::<f32>();
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { LINE };
        Layout::from_size_align(bytes, align).expect("a size below 2^63")
    }

    pub(crate) fn as_ptr(&self) -> *const f32 {
        self.start.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.start.as_ptr()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: `len` initialized values.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::zeros(0)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated by `zeros` with the same layout.
            unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) };
        }
    }
}

/// Asks for huge pages; without them the memory is the same, only slower.
#[cfg(target_os = "linux")]
fn use_huge_pages(start: *mut u8, bytes: usize) {
    unsafe extern "C" {
        safe fn madvise(start: *mut u8, bytes: usize, advice: i32) -> i32;
    }
    const MADV_HUGEPAGE: i32 = 14;
    madvise(start, bytes, MADV_HUGEPAGE);
}

#[cfg(not(target_os = "linux"))]
fn use_huge_pages(_: *mut u8, _: usize) {}

thread_local! {
    /// This thread's workspace. New memory would cost a page fault every 4 KB in each call.
    static WORKSPACE: RefCell<Buffer> = RefCell::new(Buffer::default());
    /// Workspace that this thread shares with those that it starts a kernel on.
    static SHARED: RefCell<Buffer> = RefCell::new(Buffer::default());
}

/// Workspace that all tasks of a kernel share, as [`workspace`].
pub(crate) fn shared_workspace(len: usize) -> Workspace {
    Workspace::of(&SHARED, len)
}

/// This thread's workspace of at least `len` values, whatever they are. Its memory is kept until the thread ends; kernels bound
/// `len` to what fits the cache.
#[inline(always)]
pub(crate) fn workspace(len: usize) -> Workspace {
    Workspace::of(&WORKSPACE, len)
}

type OfThread = LocalKey<RefCell<Buffer>>;

/// This thread's workspace while a task has it.
pub(crate) struct Workspace {
    buffer: Buffer,
    owner: &'static OfThread,
}

impl Workspace {
    #[inline(always)]
    fn of(owner: &'static OfThread, len: usize) -> Self {
        let mut buffer = owner.take();
        if buffer.len() < len {
            drop(buffer); // before the new one is allocated
            buffer = Buffer::zeros(len);
        }
        Self { buffer, owner }
    }

    #[inline(always)]
    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.buffer.as_mut_ptr()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.owner.set(std::mem::take(&mut self.buffer));
    }
}

/// A pointer to an output of which each task writes its own part.
#[derive(Clone, Copy)]
pub(crate) struct Output<T = f32>(*mut T);

// SAFETY: the tasks that share it write disjoint parts, as each kernel says.
unsafe impl<T> Sync for Output<T> {}
unsafe impl<T> Send for Output<T> {}

impl<T> Output<T> {
    pub(crate) fn new(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// A workspace of which each task writes its own part.
    pub(crate) fn from_pointer(values: *mut T) -> Self {
        Self(values)
    }

    #[inline(always)]
    pub(crate) fn at(&self, offset: usize) -> *mut T {
        // An offset beyond the end is a bug of the kernel and never accessed; `wrapping_add` makes computing it harmless.
        self.0.wrapping_add(offset)
    }
}
