//! Precomputed neighbors of the images of a dataset.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ldm_checkpoint::Checkpoint;
use ldm_core::{Error, Result, files};
use tch::{Kind, Tensor};

use crate::embedding_index::{integers, shape};
use crate::names::{NameList, check_names, name};
use crate::{EmbeddingIndex, Search};

/// Version of the file format.
const FORMAT: &str = "ldm neighbors 1";
const NEIGHBORS: &str = "neighbors";
/// Images whose neighbors are searched at once.
const CHUNK: usize = 1024;

/// The nearest neighbors in a database of the images of a dataset, found once before training.
///
/// The file is safetensors: `neighbors` `[N, k]` i64, indices into the database, nearest first; `names` and `name_ends` as in
/// an [`EmbeddingIndex`], the names of the images; metadata `format` and `database`, the fingerprint of the database.
#[derive(Debug)]
pub struct NeighborTable {
    database: EmbeddingIndex,
    checkpoint: Checkpoint,
    /// Rows by the names of their images.
    rows: HashMap<String, usize>,
    k: usize,
}

impl NeighborTable {
    /// Writes the table of the `k` nearest neighbors in `database` of each of `images`. An image is not its own neighbor:
    /// where the database has one of its name, that one is left out. `observe` receives the number of images done.
    ///
    /// # Errors
    /// As [`EmbeddingIndex::search`]; [`Error::Io`] when the file cannot be written.
    pub fn write(
        path: impl AsRef<Path>,
        images: &EmbeddingIndex,
        database: &EmbeddingIndex,
        k: usize,
        search: Search,
        observe: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let mut names = NameList::default();
        let mut neighbors = Vec::with_capacity(images.len() * k.min(database.len()));
        let all = images.embeddings()?;
        for start in (0..images.len()).step_by(CHUNK) {
            files::stopping()?;
            let queries = all.narrow(0, start as i64, CHUNK.min(images.len() - start) as i64);
            let found = database.search(&queries, (k + 1).min(database.len()), search)?;
            for (image, found) in (start..).zip(found) {
                let own = images.name(image);
                let others = found.iter().map(|each| each.index).filter(|index| database.name(*index) != own);
                let before = neighbors.len();
                neighbors.extend(others.take(k).map(|index| index as i64));
                if neighbors.len() - before < k || k == 0 {
                    let expected = format!("1 to {}, the other images of the database", database.len() - 1);
                    return Err(Error::expected("k", expected, k));
                }
                names.push(&own);
            }
            observe(names.len());
        }
        let table = Tensor::from_slice(&neighbors).view([images.len() as i64, k as i64]);
        let tensors: Vec<(String, Tensor)> =
            names.tensors().into_iter().chain([(NEIGHBORS.to_owned(), table)]).collect();
        let metadata = [("format", FORMAT.to_owned()), ("database", database.fingerprint())];
        let metadata: BTreeMap<String, String> =
            metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        ldm_checkpoint::save(path, &tensors, &metadata)
    }

    /// Opens a table and its database, of whose neighbors the first `k` are used, or all.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read; [`Error::Format`] when one is damaged or of another kind, when the table is
    /// of another database, and when two of its images have the same name; [`Error::Invalid`] for a `k` that is 0 or more
    /// than it has.
    pub fn open(path: impl AsRef<Path>, database: impl AsRef<Path>, k: Option<usize>) -> Result<Self> {
        let (path, database) = (path.as_ref(), EmbeddingIndex::open(database)?);
        let refuse = |why: &str| Error::format(path, why);
        let checkpoint = Checkpoint::open(path)?;
        let metadata = checkpoint.metadata();
        if metadata.get("format").is_none_or(|format| format != FORMAT) {
            return Err(refuse(
                "expected a table of neighbors, got another file; try ldm retrieve neighbors",
            ));
        }
        if metadata.get("database") != Some(&database.fingerprint()) {
            let file = database.path().display();
            return Err(refuse(&format!("expected neighbors in {file}, got those in another database")));
        }
        let [count, most] = shape(&checkpoint, NEIGHBORS, Kind::Int64)?;
        let k = k.unwrap_or(most);
        if k == 0 || k > most {
            return Err(Error::expected("k", format!("1 to {most}, the neighbors in {}", path.display()), k));
        }
        check_names(&checkpoint, count)?;
        let known = 0..database.len() as i64;
        if !integers(checkpoint.bytes(NEIGHBORS).unwrap_or_default()).all(|index| known.contains(&index)) {
            return Err(refuse(&format!("expected neighbors below {}, got others", known.end)));
        }
        let rows: HashMap<String, usize> =
            (0..count).map(|row| (name(&checkpoint, row).into_owned(), row)).collect();
        if rows.len() < count {
            return Err(refuse("expected images with different names, got two of the same name"));
        }
        Ok(Self { database, checkpoint, rows, k })
    }

    /// Number of images.
    #[expect(clippy::len_without_is_empty, reason = "a table has at least one image")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The database.
    pub fn database(&self) -> &EmbeddingIndex {
        &self.database
    }

    /// Number of neighbors of an image that are used.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Indices of the neighbors of the image `name`, nearest first; `None` for an image that is not in the table.
    pub fn neighbors(&self, name: &str) -> Option<impl Iterator<Item = usize>> {
        let row = *self.rows.get(name)?;
        let bytes = self.checkpoint.bytes(NEIGHBORS).expect("checked by open");
        let row = bytes.chunks_exact(bytes.len() / self.len()).nth(row).expect("a row of the table");
        Some(integers(row).take(self.k).map(|index| index as usize))
    }
}
