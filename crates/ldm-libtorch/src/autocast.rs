//! Autocast with a dtype and a device, for a scope.

use std::marker::PhantomData;

use tch::{Device, Kind};

use crate::ffi;

/// Operations run in a lower precision where that is safe, until this is dropped. `torch.autocast`.
///
/// Scopes nest; drop them in reverse order, which Rust's scopes do by themselves.
#[derive(Debug)]
#[must_use = "autocast ends when the guard is dropped"]
pub struct Autocast {
    cuda: bool,
    before: (i32, i32),
    // Autocast is a state of this thread.
    _not_send: PhantomData<*const ()>,
}

/// Starts an autocast scope on `device` with `kind` (bf16 or f16); `Kind::Float` switches autocast off for
/// the scope.
///
/// # Panics
/// When `kind` is no floating dtype.
pub fn autocast(device: Device, kind: Kind) -> Autocast {
    let cuda = device.is_cuda();
    // Off keeps a valid dtype beside it: libtorch looks at the switch alone.
    let (on, dtype) = if kind == Kind::Float { (false, Kind::BFloat16) } else { (true, kind) };
    let before = ffi::autocast_enter(cuda, on, dtype).expect("CPU and CUDA have autocast");
    Autocast { cuda, before, _not_send: PhantomData }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // Setting back what was set before cannot fail.
        let _ = ffi::autocast_leave(self.cuda, self.before);
    }
}
