//! Tables of functions that are found at run time: `csrc/late.h`.

use std::ffi::c_int;

use tch::TchError;

use super::check;

unsafe extern "C" {
    safe fn ldm_late_check(table: c_int) -> c_int;
}

/// A table of `csrc/late.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LateTable {
    /// CUDA graphs of libtorch_cuda.so.
    Graph,
    /// The CUDA driver.
    Driver,
    /// NCCL's process group of libtorch_cuda.so.
    Nccl,
}

impl LateTable {
    /// Finds its functions, once.
    pub(crate) fn check(self) -> Result<(), TchError> {
        check(ldm_late_check(self as c_int))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::{CString, c_char, c_void};
    use std::path::PathBuf;

    use super::*;
    use crate::cuda_device_count;
    use crate::ffi::{RawGroup, message};

    unsafe extern "C" {
        fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    }

    /// Opens libtorch's CUDA library, which needs no GPU: that in use, or one in a folder of `LD_LIBRARY_PATH`.
    fn open_cuda() -> bool {
        const NOW: c_int = 2;
        let folders = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let folders = std::env::split_paths(&folders).map(|folder| folder.join("libtorch_cuda.so"));
        [PathBuf::from("libtorch_cuda.so")].into_iter().chain(folders).any(|path| {
            let name = CString::new(path.into_os_string().into_encoded_bytes()).unwrap();
            // SAFETY: a NUL-terminated name; the library is libtorch's own.
            !unsafe { dlopen(name.as_ptr(), NOW) }.is_null()
        })
    }

    #[test]
    fn libtorchs_cuda_library_has_every_name() {
        if !open_cuda() {
            return println!("skipped: no libtorch_cuda.so");
        }
        for table in [LateTable::Graph, LateTable::Nccl] {
            assert_eq!(table.check().map_err(|error| message(&error)), Ok(()), "{table:?}");
        }
    }

    /// Without a GPU the constructor of the options has run, and that of the group has refused.
    #[test]
    fn nccls_process_group_is_made_by_its_own_constructors() {
        if !open_cuda() {
            return println!("skipped: no libtorch_cuda.so");
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let group = RawGroup::connect(&c"127.0.0.1".into(), port, Some(None), [0, 1], [5., 5.]);
        match group {
            Ok(_) => assert!(cuda_device_count() > 0),
            Err(error) => assert!(message(&error).contains("no GPUs found"), "{error}"),
        }
    }

    #[test]
    fn a_missing_library_is_the_reason() {
        let tables = [LateTable::Graph, LateTable::Nccl, LateTable::Driver];
        for (table, library) in
            tables.into_iter().zip(["libtorch_cuda.so", "libtorch_cuda.so", "libcuda.so.1"])
        {
            if let Err(error) = table.check() {
                assert!(message(&error).starts_with(library), "{error}");
            }
        }
    }
}
