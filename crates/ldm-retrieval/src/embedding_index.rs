//! A database of embeddings.

use std::borrow::Cow;
use std::path::Path;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use crate::names::{check_names, name};
use crate::partition::Leaves;

/// Version of the file format.
pub(crate) const FORMAT: &str = "ldm embeddings 1";
pub(crate) const EMBEDDINGS: &str = "embeddings";

/// A database of image embeddings: a file that [`IndexWriter`](crate::IndexWriter) wrote.
///
/// The file is safetensors, with metadata `format` and, where it is known, `clip`, the fingerprint of the network. It is
/// memory-mapped: of a large one, only the searched parts are read.
///
/// | tensor | shape | |
/// |---|---|---|
/// | `embeddings` | `[N, D]` f32 | of unit length |
/// | `names` | `[bytes]` u8 | names of the images in UTF-8, one after the other |
/// | `name_ends` | `[N]` i64 | end of each name |
/// | `centroids` | `[L, D]` f32 | with a partition: the center of each leaf, of unit length |
/// | `leaf_ends` | `[L]` i64 | with a partition: the embeddings are in the order of their leaves; end of each leaf |
#[derive(Debug)]
pub struct EmbeddingIndex {
    checkpoint: Checkpoint,
    count: usize,
    width: usize,
    leaves: Option<Leaves>,
}

impl EmbeddingIndex {
    /// Opens a database. Shapes, names and partition are checked; embeddings are read when they are used.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Format`] when it is no database, or damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path.as_ref())?;
        if checkpoint.metadata().get("format").is_none_or(|format| format != FORMAT) {
            let found = "expected a database of embeddings, got another file; try ldm retrieve index";
            return Err(Error::format(path.as_ref(), found));
        }
        let [count, width] = shape(&checkpoint, EMBEDDINGS, Kind::Float)?;
        let leaves = Leaves::open(&checkpoint, count, width)?;
        check_names(&checkpoint, count)?;
        Ok(Self { checkpoint, count, width, leaves })
    }

    /// Number of images.
    #[expect(clippy::len_without_is_empty, reason = "a database has at least one image")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Components of an embedding, `D`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The path it was opened from.
    pub fn path(&self) -> &Path {
        self.checkpoint.path()
    }

    /// The fingerprint of the network that made the embeddings, where it is known.
    pub fn clip(&self) -> Option<&str> {
        self.checkpoint.metadata().get("clip").map(String::as_str)
    }

    /// Checks that a network with this fingerprint and width made the embeddings.
    ///
    /// # Errors
    /// [`Error::Format`] for another network.
    pub fn check_clip(&self, fingerprint: &str, width: usize) -> Result<()> {
        if width != self.width {
            let found = format!("expected embeddings of {width} components, as CLIP's, got {}", self.width);
            return Err(self.refuse(&found));
        }
        match self.clip() {
            Some(own) if own != fingerprint => {
                Err(self.refuse("expected embeddings of this CLIP, got those of another one"))
            }
            _ => Ok(()),
        }
    }

    /// The name of an image.
    ///
    /// # Panics
    /// When `index` is not below [`len`](Self::len).
    pub fn name(&self, index: usize) -> Cow<'_, str> {
        name(&self.checkpoint, index)
    }

    /// SHA-256 of sizes, names and up to 1024 embeddings: 64 hex digits that identify the database.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{FORMAT} {} {}", self.count, self.width));
        let sample = self.count.min(1024);
        for index in (0..sample).map(|each| each * self.count / sample) {
            hash.update(self.name(index).as_bytes());
            self.embedding(index).for_each(|value| hash.update(value.to_le_bytes()));
        }
        format!("{:x}", hash.finalize())
    }

    /// The embedding of an image, `D` values.
    ///
    /// # Panics
    /// As [`name`](Self::name).
    pub fn embedding(&self, index: usize) -> impl Iterator<Item = f32> {
        let bytes = self.bytes(EMBEDDINGS).expect("checked by open");
        let row = self.width * size_of::<f32>();
        let values = bytes[index * row..(index + 1) * row].chunks_exact(size_of::<f32>());
        values.map(|value| f32::from_le_bytes(value.try_into().expect("four bytes")))
    }

    /// All embeddings, `[N, D]` f32 on the CPU, memory-mapped.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be mapped again.
    pub fn embeddings(&self) -> Result<Tensor> {
        self.mapped(EMBEDDINGS)
    }

    pub(crate) fn mapped(&self, name: &str) -> Result<Tensor> {
        self.checkpoint.mapped(name)
    }

    pub(crate) fn leaves(&self) -> Option<&Leaves> {
        self.leaves.as_ref()
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<&[u8]> {
        self.checkpoint.bytes(name).ok_or_else(|| self.refuse(&format!("no plain tensor `{name}`")))
    }

    pub(crate) fn refuse(&self, why: &str) -> Error {
        Error::format(self.path(), why)
    }
}

/// The sizes of a tensor of `A` axes, none of them empty, and of dtype `kind`.
pub(crate) fn shape<const A: usize>(checkpoint: &Checkpoint, name: &str, kind: Kind) -> Result<[usize; A]> {
    let refuse = |got: String| {
        let message = format!("tensor `{name}`: expected {kind:?} of {A} axes, got {got}");
        Error::format(checkpoint.path(), message)
    };
    let info = checkpoint.info(name).ok_or_else(|| refuse("none".into()))?;
    let sizes: Vec<usize> = info.shape.iter().filter_map(|size| usize::try_from(*size).ok()).collect();
    let got = || refuse(format!("{:?} of {:?}", info.shape, info.kind));
    let sizes: [usize; A] = sizes.try_into().map_err(|_| got())?;
    if info.kind != kind || sizes.contains(&0) || checkpoint.bytes(name).is_none() {
        return Err(got());
    }
    Ok(sizes)
}

/// Integers of their bytes in a file.
pub(crate) fn integers(bytes: &[u8]) -> impl Iterator<Item = i64> + Clone {
    bytes.chunks_exact(size_of::<i64>()).map(|each| i64::from_le_bytes(each.try_into().expect("eight bytes")))
}
