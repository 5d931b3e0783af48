//! Writing a database of embeddings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use ldm_core::{Error, Result, files};
use ldm_libtorch::map_open_file;
use tch::{Kind, Tensor};

use crate::EmbeddingIndex;
use crate::embedding_index::{EMBEDDINGS, FORMAT};
use crate::names::NameList;
use crate::partition::{CENTROIDS, LEAF_ENDS, Partition};
use crate::search::{ROWS, unit, values};

/// Writes a database of embeddings that may be larger than the memory: embeddings are collected in a temporary file without
/// a name, which an interrupted program leaves nothing of, and the database appears at its path when it is complete.
#[derive(Debug)]
pub struct IndexWriter {
    path: PathBuf,
    rows: File,
    width: Option<usize>,
    names: NameList,
}

impl IndexWriter {
    /// A writer of the database `path`, which need not exist.
    ///
    /// # Errors
    /// [`Error::Io`] when its folder cannot be written to.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let rows = temporary(&path)?;
        Ok(Self { path, rows, width: None, names: NameList::default() })
    }

    /// Number of images so far.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True before the first image.
    pub fn is_empty(&self) -> bool {
        self.names.len() == 0
    }

    /// Adds images: their embeddings, which are scaled to unit length as in CompVis `scripts/knn2img.py:88`, and their
    /// names. An empty name becomes the number of the image.
    ///
    /// # Shapes
    /// - `embeddings`: `[B, D]`, one row per name
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape than before; [`Error::Data`] for an embedding of zeros, NaN or Inf, with its name;
    /// [`Error::Io`] when the disk is full.
    pub fn push<S: AsRef<str>>(&mut self, embeddings: &Tensor, names: &[S]) -> Result<()> {
        let size = embeddings.size();
        let width = *self.width.get_or_insert(size.get(1).map_or(0, |width| *width as usize));
        if width == 0 || size != [names.len() as i64, width as i64] {
            let expected = format!("[{}, {width}]", names.len());
            return Err(Error::Shape { what: "embeddings".into(), expected, got: size });
        }
        let Some(rows) = unit(embeddings) else {
            let bad = (0..).zip(names).find(|(row, _)| unit(&embeddings.narrow(0, *row, 1)).is_none());
            let name = bad.map_or("", |(_, name)| name.as_ref());
            return Err(Error::data(name, "expected an embedding other than zero, got zero, NaN or Inf"));
        };
        write(&mut self.rows, &rows, &self.path)?;
        for name in names {
            self.names.push(name.as_ref());
        }
        Ok(())
    }

    /// Writes the database and opens it. `clip` is the fingerprint of the network, where it is known; with `partitioned` the
    /// database gets a partition, by which [`Search::Partitioned`](crate::Search::Partitioned) finds neighbors in a small
    /// part of it.
    ///
    /// # Errors
    /// [`Error::Data`] without any image; [`Error::Io`] when the file cannot be written; [`Error::Invalid`] when the memory
    /// does not suffice for the partition.
    pub fn finish(self, clip: Option<&str>, partitioned: bool) -> Result<EmbeddingIndex> {
        let Self { path, rows, width, mut names } = self;
        let (Some(width), count @ 1..) = (width, names.len() as i64) else {
            return Err(Error::data(path, "expected embeddings of at least one image, got none"));
        };
        let size = [count, width as i64];
        let mut all = map(rows, &size, &path)?;
        let mut tensors = Vec::new();
        if partitioned {
            let partition = Partition::train(&all)?;
            let (order, leaf_ends) = partition.order();
            all = map(reordered(&all, &order, &path)?, &size, &path)?;
            names = names.reordered(&order);
            tensors.push((CENTROIDS.to_owned(), partition.centroids()));
            tensors.push((LEAF_ENDS.to_owned(), Tensor::from_slice(&leaf_ends)));
        }
        tensors.push((EMBEDDINGS.to_owned(), all));
        tensors.extend(names.tensors());
        let metadata = [("format", Some(FORMAT)), ("clip", clip)];
        let metadata: BTreeMap<String, String> =
            metadata.into_iter().filter_map(|(key, value)| Some((key.into(), value?.into()))).collect();
        ldm_checkpoint::save(&path, &tensors, &metadata)?;
        EmbeddingIndex::open(path)
    }
}

/// A file without a name, in the folder of `path`.
fn temporary(path: &Path) -> Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    tempfile::tempfile_in(folder.unwrap_or(Path::new("."))).map_err(Error::io(path))
}

/// The rows in a file.
fn map(rows: File, size: &[i64], path: &Path) -> Result<Tensor> {
    let pages = map_open_file(rows).and_then(|file| file.pages()).map_err(Error::io(path))?;
    Ok(pages.tensor(0, size, Kind::Float).expect("the rows that were written"))
}

/// A file of the rows in another order.
fn reordered(all: &Tensor, order: &[i64], path: &Path) -> Result<File> {
    let mut file = temporary(path)?;
    for some in order.chunks(ROWS as usize) {
        files::stopping()?;
        write(&mut file, &all.index_select(0, &Tensor::from_slice(some)), path)?;
    }
    Ok(file)
}

fn write(file: &mut File, rows: &Tensor, path: &Path) -> Result<()> {
    let bytes: Vec<u8> = values(rows).into_iter().flat_map(f32::to_le_bytes).collect();
    file.write_all(&bytes).map_err(Error::io(path))
}
