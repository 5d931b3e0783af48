//! The error type of all libraries.

use std::fmt;
use std::path::{Path, PathBuf};

/// `Result` with the workspace's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the outside world: a file, a config, weights, a prompt, a device. Bugs panic instead.
///
/// Messages have one form, lower case and without a full stop: `KEY or FILE: expected X, got Y`, and `; try Z` where that
/// helps. [`Error::expected`] builds it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A failed operation on a file or folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file that is damaged, truncated, or of another format.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The problem, and its place in the file.
        message: String,
    },
    /// An invalid config file.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file of the value.
        path: PathBuf,
        /// The key, the line if known, and the expected value.
        message: String,
    },
    /// A well-formed value that is invalid for its module.
    #[error("{0}")]
    Invalid(String),
    /// A checkpoint whose names or shapes do not match the model.
    #[error("{}: {mismatch}", path.display())]
    Weights {
        /// The checkpoint.
        path: PathBuf,
        /// Every name that does not match.
        mismatch: Mismatch,
    },
    /// An input tensor of the wrong shape.
    #[error("{what}: expected shape {expected}, got {got:?}")]
    Shape {
        /// The input.
        what: String,
        /// The expected shape in letters, e.g. `[B, 3, H, W]`.
        expected: String,
        /// The actual shape.
        got: Vec<i64>,
    },
    /// An input that the model needs and the prompt lacks.
    #[error("this model is conditioned on `{0}`, and the prompt has none")]
    MissingInput(&'static str),
    /// An unknown or unusable device or dtype.
    #[error("{0}")]
    Device(String),
    /// An empty dataset, or an unreadable file of one.
    #[error("{}: {message}", path.display())]
    Data {
        /// The dataset, or the file in it.
        path: PathBuf,
        /// The problem.
        message: String,
    },
    /// Work that was given up, since it was asked to stop.
    #[error("stopped")]
    Stopped,
    /// A failed or lost connection between ranks.
    #[error(transparent)]
    Ranks(#[from] ldm_libtorch::GroupError),
    /// An operation that libtorch refused.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// An [`Error::Format`] about `path`.
    pub fn format(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// An [`Error::Config`] about `path`.
    pub fn config(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Config { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// An [`Error::Data`] about `path`.
    pub fn data(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// An [`Error::Invalid`] of the form `WHAT: expected EXPECTED, got GOT`.
    ///
    /// ```
    /// let error = ldm_core::Error::expected("height", "a multiple of 8", "511; try 512");
    /// assert_eq!(error.to_string(), "height: expected a multiple of 8, got 511; try 512");
    /// ```
    pub fn expected(what: impl fmt::Display, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Self::Invalid(format!("{what}: expected {expected}, got {got}"))
    }

    /// An [`Error::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}

/// All differences between a checkpoint and a model.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Names in the model but not in the file.
    pub missing: Vec<String>,
    /// Names in the file but not in the model.
    pub unexpected: Vec<String>,
    /// Name, the model's shape, the file's shape.
    pub misshaped: Vec<(String, Vec<i64>, Vec<i64>)>,
}

impl Mismatch {
    /// Returns whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshaped.is_empty()
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                write!(f, "{separator}{} {what}: {}", names.len(), names.join(", "))?;
                separator = "; ";
            }
        }
        if !self.misshaped.is_empty() {
            write!(f, "{separator}{} of another shape: ", self.misshaped.len())?;
            for (index, (name, expected, found)) in self.misshaped.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                write!(f, "{comma}{name} (model {expected:?}, file {found:?})")?;
            }
        }
        Ok(())
    }
}
