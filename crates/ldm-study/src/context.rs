//! Errors with the place they belong to.

use std::fmt::Display;

use ldm_core::{Error, Result};

/// Prefixes an error with a file, a key or an option.
pub(crate) trait Context<T> {
    /// Prefixes the error: `PLACE: ERROR`.
    fn context(self, place: impl Display) -> Result<T>;

    /// Does the same as [`Context::context`] with a place that is computed only for an error.
    fn with_context<P: Display>(self, place: impl FnOnce() -> P) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context(self, place: impl Display) -> Result<T> {
        self.with_context(|| place)
    }

    fn with_context<P: Display>(self, place: impl FnOnce() -> P) -> Result<T> {
        self.map_err(|error| Error::invalid(format!("{}: {error}", place())))
    }
}

/// Returns an [`Error::Invalid`] with a formatted message.
macro_rules! bail {
    ($($part:tt)*) => { return Err(ldm_core::Error::invalid(format!($($part)*))) };
}

pub(crate) use bail;
