//! Tables of functions that are found at run time: `csrc/late.h`.

use std::ffi::{CStr, c_char, c_int};

use tch::TchError;

use super::check;

unsafe extern "C" {
    safe fn ldm_late_check(table: c_int) -> c_int;
    #[cfg(test)]
    safe fn ldm_late_name(table: c_int, index: usize) -> *const c_char;
}

/// A table of `csrc/late.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LateTable {
    /// CUDA graphs of libtorch_cuda.so.
    Graph,
    /// The CUDA driver.
    Driver,
}

impl LateTable {
    /// Finds its functions, once.
    pub(crate) fn check(self) -> Result<(), TchError> {
        check(ldm_late_check(self as c_int))
    }

    /// The names of its functions.
    #[cfg(test)]
    pub(crate) fn names(self) -> Vec<String> {
        let name = |index| ldm_late_name(self as c_int, index);
        let names = (0..).map(name).take_while(|name| !name.is_null());
        // SAFETY: a string constant of the C side.
        names.map(|name| unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()).collect()
    }
}
