//! Autocast scopes with a device and a dtype.

use std::marker::PhantomData;

use tch::{Device, Kind};

use crate::ffi;

/// An autocast scope: until it is dropped, operations run in a lower precision where that is safe. `torch.autocast`.
///
/// Scopes nest; they must be dropped in reverse order, as Rust's scopes do.
#[derive(Debug)]
#[must_use = "autocast ends when the guard is dropped"]
pub struct Autocast {
    cuda: bool,
    before: (i32, i32),
    // Autocast is state of this thread.
    _not_send: PhantomData<*const ()>,
}

/// Starts an autocast scope on `device` with `kind` (bf16 or f16); `Kind::Float` disables autocast in the scope.
///
/// # Panics
/// When `kind` is not a floating dtype.
pub fn autocast(device: Device, kind: Kind) -> Autocast {
    let cuda = device.is_cuda();
    // Disabled autocast still needs a valid dtype.
    let (on, dtype) = if kind == Kind::Float { (false, Kind::BFloat16) } else { (true, kind) };
    let before = ffi::autocast_enter(cuda, on, dtype).expect("CPU and CUDA have autocast");
    Autocast { cuda, before, _not_send: PhantomData }
}

/// Returns true in a scope of [`autocast`] on such a device.
pub fn is_autocast(device: Device) -> bool {
    ffi::autocast_enabled(device.is_cuda())
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // Restoring the former state cannot fail.
        let _ = ffi::autocast_leave(self.cuda, self.before);
    }
}
