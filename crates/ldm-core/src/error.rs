//! The one error type of the libraries: which of a few kinds of thing went wrong in the world.

use std::fmt;
use std::path::{Path, PathBuf};

/// `Result` with the workspace's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong in the world (a file, a config, weights, a prompt, a device). Bugs panic instead.
///
/// Messages are lower case, without a full stop, and name the file, the key or the size.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something with a file or a folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what its name or its head says: damaged, truncated, or another format.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where in the file.
        message: String,
    },
    /// A config file says something that cannot be.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file the value came from.
        path: PathBuf,
        /// The key, the line where known, and what was expected.
        message: String,
    },
    /// A config value read correctly but impossible for the module it describes.
    #[error("{0}")]
    Invalid(String),
    /// A checkpoint's names or shapes are not the model's.
    #[error("{}: {mismatch}", path.display())]
    Weights {
        /// The checkpoint.
        path: PathBuf,
        /// Every name that does not fit.
        mismatch: Mismatch,
    },
    /// A tensor from outside has the wrong shape.
    #[error("{what}: expected shape {expected}, got {got:?}")]
    Shape {
        /// Which input.
        what: String,
        /// The expected shape in letters, e.g. `[B, 3, H, W]`.
        expected: String,
        /// The shape found.
        got: Vec<i64>,
    },
    /// The model needs an input the prompt does not have.
    #[error("this model is conditioned on `{0}`, and the prompt has none")]
    MissingInput(&'static str),
    /// The device asked for cannot be used.
    #[error("{0}")]
    Device(String),
    /// A dataset has nothing to give, or something in it cannot be read.
    #[error("{}: {message}", path.display())]
    Data {
        /// The dataset, or the file in it.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A rank has no others to train with, or lost them.
    #[error(transparent)]
    Ranks(#[from] ldm_libtorch::GroupError),
    /// libtorch refused an operation.
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

    /// An [`Error::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}

/// Every way in which a checkpoint and a model disagree, listed at once.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Names the model has and the file lacks.
    pub missing: Vec<String>,
    /// Names the file has and the model lacks.
    pub unexpected: Vec<String>,
    /// Name, the model's shape, the file's shape.
    pub misshaped: Vec<(String, Vec<i64>, Vec<i64>)>,
}

impl Mismatch {
    /// Whether everything fits.
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
