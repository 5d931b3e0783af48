//! Every `unsafe` line of the workspace, here and in `ffi/`: the C interface of `csrc/`, behind safe functions.
//!
//! The rules these lines rely on: a pointer from [`Tensor::as_ptr`] is a live `at::Tensor *` while the `Tensor`
//! is borrowed; the C side copies the handle (a reference count) when it keeps one; a tensor handed out is
//! owned by the caller.
#![allow(unsafe_code)]

mod allocator;
mod cuda;
mod cuda_kernels;
mod graph;
mod kernels;
mod late;
mod operations;
mod optim;
#[cfg(target_env = "gnu")]
mod process;
mod ranks;
mod signals;
mod transfer;

pub use allocator::ExitingAllocator;
pub(crate) use cuda::{
    cuda_capability, cuda_library, cuda_set_device, set_cudnn_benchmark, set_deterministic, set_tf32,
};
pub(crate) use cuda_kernels::{
    NormPlan, add_compiled, fused_bias_add, fused_geglu, fused_group_norm, gpu_limits, has_emulator,
    set_emulator_order,
};
pub(crate) use graph::RawGraph;
pub(crate) use kernels::{Number, TorchThreads, grad_enabled, values, values_mut};
pub(crate) use late::LateTable;
pub(crate) use operations::{Observer, count_operation, is_counting};
pub(crate) use optim::{foreach_lerp, forget_gradients, fused_adamw, gradients, total_norm};
#[cfg(target_env = "gnu")]
pub(crate) use process::keep_freed_memory;
pub(crate) use ranks::{RawGroup, RawReducer, RawWork};
pub(crate) use signals::explain_bus_errors;
pub(crate) use transfer::{RawDownload, pin, upload};

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::dtype::dtype;

type Ptr = *const C_tensor;
type Out = *mut C_tensor;

unsafe extern "C" {
    fn ldm_last_error() -> *const c_char;
    fn ldm_generator_new(seed: u64, out: *mut *mut c_void) -> c_int;
    fn ldm_generator_free(generator: *mut c_void);
    fn ldm_generator_randn(
        g: *mut c_void,
        size: *const i64,
        dims: usize,
        dtype: c_int,
        out: *mut Out,
    ) -> c_int;
    fn ldm_generator_rand(
        g: *mut c_void,
        size: *const i64,
        dims: usize,
        dtype: c_int,
        out: *mut Out,
    ) -> c_int;
    fn ldm_generator_randint(
        g: *mut c_void,
        high: i64,
        size: *const i64,
        dims: usize,
        out: *mut Out,
    ) -> c_int;
    fn ldm_to_channels_last(input: Ptr, out: *mut Out) -> c_int;
    fn ldm_restride_channels_last(input: Ptr, out: *mut Out) -> c_int;
    fn ldm_is_channels_last(input: Ptr, out: *mut c_int) -> c_int;
    fn ldm_autocast_enter(
        cuda: c_int,
        on: c_int,
        dtype: c_int,
        was: *mut c_int,
        was_dtype: *mut c_int,
    ) -> c_int;
    fn ldm_autocast_leave(cuda: c_int, was: c_int, was_dtype: c_int) -> c_int;
    safe fn ldm_autocast_enabled(cuda: c_int) -> c_int;
    fn ldm_cuda_memory(device: c_int, current: *mut i64, peak: *mut i64, reserved: *mut i64) -> c_int;
    fn ldm_cuda_reset_peak(device: c_int) -> c_int;
    fn ldm_cuda_empty_cache() -> c_int;
    fn ldm_checkpoint(
        run: extern "C" fn(*mut c_void, *const Out, usize, *mut Out) -> c_int,
        drop: extern "C" fn(*mut c_void),
        state: *mut c_void,
        inputs: *const Ptr,
        input_count: usize,
        params: *const Ptr,
        param_count: usize,
        out: *mut Out,
    ) -> c_int;
    fn ldm_from_blob(
        data: *mut c_void,
        size: *const i64,
        dims: usize,
        dtype: c_int,
        drop: extern "C" fn(*mut c_void),
        owner: *mut c_void,
        out: *mut Out,
    ) -> c_int;
}

/// Turns a C status into a result with libtorch's message.
fn check(status: c_int) -> Result<(), TchError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the message is a NUL-terminated string of this thread, valid until the next failing call.
    let message = unsafe { CStr::from_ptr(ldm_last_error()) };
    Err(TchError::Torch(message.to_string_lossy().into_owned()))
}

/// libtorch's message of an error.
pub(crate) fn message(error: &TchError) -> String {
    match error {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    }
}

fn pointers<T: AsRef<Tensor>>(tensors: &[T]) -> Vec<Ptr> {
    tensors.iter().map(|tensor| tensor.as_ref().as_ptr()).collect()
}

/// Returns the new tensor that a successful call writes.
fn new_tensor(call: impl FnOnce(*mut Out) -> c_int) -> Result<Tensor, TchError> {
    let mut out: Out = std::ptr::null_mut();
    check(call(&raw mut out))?;
    // SAFETY: status 0 means that `out` is a new handle, which is ours.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// Returns the new pointer, owned by the caller, that a successful call writes.
fn owned(call: impl FnOnce(*mut *mut c_void) -> c_int) -> Result<*mut c_void, TchError> {
    let mut out = std::ptr::null_mut();
    check(call(&raw mut out))?;
    Ok(out)
}

/// Owns an `at::Generator`.
#[derive(Debug)]
pub(crate) struct RawGenerator(*mut c_void);

// SAFETY: a generator is a heap object without thread affinity; `&mut self` methods keep its use exclusive.
unsafe impl Send for RawGenerator {}

impl Drop for RawGenerator {
    fn drop(&mut self) {
        // SAFETY: made by ldm_generator_new, freed once.
        unsafe { ldm_generator_free(self.0) }
    }
}

impl RawGenerator {
    pub(crate) fn new(seed: u64) -> Result<Self, TchError> {
        // SAFETY: a plain value; the out parameter is `owned`'s.
        owned(|out| unsafe { ldm_generator_new(seed, out) }).map(Self)
    }

    pub(crate) fn randn(&mut self, size: &[i64], kind: Kind) -> Result<Tensor, TchError> {
        // SAFETY: `size` outlives the call; the generator is live.
        new_tensor(|out| unsafe { ldm_generator_randn(self.0, size.as_ptr(), size.len(), dtype(kind), out) })
    }

    pub(crate) fn rand(&mut self, size: &[i64], kind: Kind) -> Result<Tensor, TchError> {
        // SAFETY: as `randn`.
        new_tensor(|out| unsafe { ldm_generator_rand(self.0, size.as_ptr(), size.len(), dtype(kind), out) })
    }

    pub(crate) fn randint(&mut self, high: i64, size: &[i64]) -> Result<Tensor, TchError> {
        // SAFETY: as `randn`.
        new_tensor(|out| unsafe { ldm_generator_randint(self.0, high, size.as_ptr(), size.len(), out) })
    }
}

pub(crate) fn to_channels_last(input: &Tensor) -> Result<Tensor, TchError> {
    // SAFETY: live handle in, new handle out.
    new_tensor(|out| unsafe { ldm_to_channels_last(input.as_ptr(), out) })
}

pub(crate) fn restride_channels_last(input: &Tensor) -> Result<Tensor, TchError> {
    // SAFETY: live handle in, new handle out.
    new_tensor(|out| unsafe { ldm_restride_channels_last(input.as_ptr(), out) })
}

pub(crate) fn is_channels_last(input: &Tensor) -> Result<bool, TchError> {
    let mut found = 0;
    // SAFETY: live handle; the out parameter lives on this frame.
    check(unsafe { ldm_is_channels_last(input.as_ptr(), &raw mut found) })?;
    Ok(found != 0)
}

pub(crate) fn autocast_enter(cuda: bool, on: bool, kind: Kind) -> Result<(c_int, c_int), TchError> {
    let (mut was, mut was_dtype) = (0, 0);
    // SAFETY: the two out parameters live on this frame.
    check(unsafe {
        ldm_autocast_enter(c_int::from(cuda), c_int::from(on), dtype(kind), &raw mut was, &raw mut was_dtype)
    })?;
    Ok((was, was_dtype))
}

pub(crate) fn autocast_leave(cuda: bool, (was, was_dtype): (c_int, c_int)) -> Result<(), TchError> {
    // SAFETY: plain values.
    check(unsafe { ldm_autocast_leave(c_int::from(cuda), was, was_dtype) })
}

pub(crate) fn autocast_enabled(cuda: bool) -> bool {
    ldm_autocast_enabled(c_int::from(cuda)) != 0
}

pub(crate) fn cuda_memory(device: usize) -> Result<[i64; 3], TchError> {
    let mut bytes = [0; 3];
    let [current, peak, reserved] = &mut bytes;
    // SAFETY: the three out parameters live on this frame.
    check(unsafe { ldm_cuda_memory(device as c_int, current, peak, reserved) })?;
    Ok(bytes)
}

pub(crate) fn cuda_reset_peak(device: usize) -> Result<(), TchError> {
    // SAFETY: plain values.
    check(unsafe { ldm_cuda_reset_peak(device as c_int) })
}

pub(crate) fn cuda_empty_cache() -> Result<(), TchError> {
    // SAFETY: no arguments.
    check(unsafe { ldm_cuda_empty_cache() })
}

/// A block's forward, boxed twice so that it passes through C as one thin pointer. The graph that owns it may be on any
/// thread, and two graphs of one forward on two.
pub(crate) type Body = Box<dyn Fn(&[Tensor]) -> Tensor + Send + Sync>;

extern "C" fn run_body(state: *mut c_void, inputs: *const Out, count: usize, out: *mut Out) -> c_int {
    // SAFETY: `state` is the Box<Body> of `checkpoint`, alive until `drop_body`; `inputs` are `count` live handles.
    let (body, inputs) = unsafe { (&*state.cast::<Body>(), std::slice::from_raw_parts(inputs, count)) };
    // A panic must not cross C++; the C side turns the status into an exception that names it.
    catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: clone_from_ptr takes a reference of its own.
        let inputs: Vec<Tensor> =
            inputs.iter().map(|input| unsafe { Tensor::clone_from_ptr(*input) }).collect();
        let mut result = crate::kernels::with_libtorchs(|| body(&inputs));
        // SAFETY: a second handle to the result, which the C side frees; null after a failure.
        unsafe {
            *out = torch_sys::at_shallow_clone(result.as_mut_ptr());
            c_int::from((*out).is_null())
        }
    }))
    .unwrap_or(1)
}

extern "C" fn drop_body(state: *mut c_void) {
    // SAFETY: the pointer of `checkpoint`, dropped once, by the destructor of the C++ owner.
    drop(unsafe { Box::from_raw(state.cast::<Body>()) });
}

pub(crate) fn checkpoint(body: Body, inputs: &[&Tensor], params: &[Tensor]) -> Result<Tensor, TchError> {
    let state = Box::into_raw(Box::new(body)).cast::<c_void>();
    let (inputs, params) = (pointers(inputs), pointers(params));
    // SAFETY: the C side owns `state` from here on; arrays of live handles.
    new_tensor(|out| unsafe {
        ldm_checkpoint(
            run_body,
            drop_body,
            state,
            inputs.as_ptr(),
            inputs.len(),
            params.as_ptr(),
            params.len(),
            out,
        )
    })
}

/// The mapping behind [`crate::MappedFile`].
pub(crate) type Map = memmap2::Mmap;

pub(crate) fn map(file: &std::fs::File) -> std::io::Result<Map> {
    // SAFETY: a read-only mapping. That the bytes stay as they are is the promise in `map_file`'s doc.
    unsafe { memmap2::MmapOptions::new().map(file) }
}

/// The private, writable mapping behind [`crate::MappedPages`]. No reference into it is ever created: tensors own its
/// bytes.
pub(crate) type PrivateMap = memmap2::MmapRaw;

/// Maps `length` bytes of `file`; writes go to copies of its pages, never to the file.
pub(crate) fn map_private(file: &std::fs::File, length: usize) -> std::io::Result<PrivateMap> {
    // SAFETY: as `map`.
    unsafe { memmap2::MmapOptions::new().len(length).no_reserve_swap().map_copy(file).map(Into::into) }
}

/// The part of a mapping under a tensor.
struct MappedRange {
    map: Arc<PrivateMap>,
    start: usize,
    length: usize,
}

impl Drop for MappedRange {
    /// Releases the pages that lie entirely in this part: nothing else reads them, and the mapping may live on.
    fn drop(&mut self) {
        // A smaller constant would be wrong where pages are larger (64 KiB on some aarch64): the call widens its range to
        // whole pages, and would discard what was written to the tensors beside this one.
        let page = rustix::param::page_size();
        let (start, end) = whole_pages(self.start..self.start + self.length, page);
        if start < end {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the range lies in the mapping, whose start is aligned to a page. The tensor that owned these
            // bytes is gone, so nothing can observe that writes to them are lost.
            let _ = unsafe { self.map.unchecked_advise_range(advice, start, end - start) };
        }
    }
}

/// Returns start and end of the pages that lie entirely in `range`; not in order if there are none.
fn whole_pages(range: std::ops::Range<usize>, page: usize) -> (usize, usize) {
    (range.start.next_multiple_of(page), range.end / page * page)
}

extern "C" fn drop_range(owner: *mut c_void) {
    // SAFETY: the pointer of `map_tensor`, dropped once, when the last view of the storage is gone.
    drop(unsafe { Box::from_raw(owner.cast::<MappedRange>()) });
}

/// Returns a tensor over the bytes of `map` from `start` on. The caller has checked that they lie in the mapping, are
/// aligned to the dtype, and belong to no other tensor.
pub(crate) fn map_tensor(
    map: &Arc<PrivateMap>,
    start: usize,
    size: &[i64],
    kind: Kind,
) -> Result<Tensor, TchError> {
    let length = size.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
    assert!(start + length <= map.len(), "a tensor inside the file");
    let owner = Box::into_raw(Box::new(MappedRange { map: map.clone(), start, length })).cast::<c_void>();
    // SAFETY: `length` bytes from `start` on lie in the mapping (above), which lives until `drop_range`.
    new_tensor(|out| unsafe {
        let data = map.as_mut_ptr().add(start).cast::<c_void>();
        ldm_from_blob(data, size.as_ptr(), size.len(), dtype(kind), drop_range, owner, out)
    })
}

#[cfg(test)]
mod tests {
    use super::whole_pages;

    #[test]
    fn only_pages_without_neighbors_are_released() {
        assert_eq!(whole_pages(0..8192, 4096), (0, 8192));
        assert_eq!(whole_pages(1..8192, 4096), (4096, 8192));
        assert_eq!(whole_pages(4096..12287, 4096), (4096, 8192));
        // On a host with large pages a tensor of 16 KiB has none for itself.
        let (start, end) = whole_pages(4096..20480, 65536);
        assert!(start >= end);
    }
}
