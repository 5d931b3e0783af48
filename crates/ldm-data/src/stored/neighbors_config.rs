//! Neighbors of stored images, for retrieval-augmented models.

use std::path::PathBuf;

use ldm_core::{Error, Result};
use ldm_retrieval::NeighborTable;
use serde::{Deserialize, Serialize};

use crate::source::data_paths::DataPaths;
use crate::stored::listing::Listing;

/// Precomputed nearest neighbors of each image (Blattmann et al. 2022): a retrieval-augmented model is trained on their
/// embeddings. `ldm retrieve` writes both files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighborsConfig {
    /// The database of embeddings.
    pub database: PathBuf,
    /// The table of the neighbors in the database of each image.
    pub table: PathBuf,
    /// Number of neighbors, the nearest. Default: all in the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
}

impl NeighborsConfig {
    /// Opens table and database.
    ///
    /// # Errors
    /// Those of [`NeighborTable::open`], and [`Error::Data`] when an image is not in the table.
    pub(crate) fn open(&self, paths: &DataPaths, listing: &Listing) -> Result<NeighborTable> {
        let table = paths.resolve(&self.table)?;
        let found = NeighborTable::open(&table, paths.resolve(&self.database)?, self.k)?;
        let names = listing.items.iter().map(|item| listing.image(item).name.as_str());
        let missing: Vec<&str> = names.filter(|name| found.neighbors(name).is_none()).collect();
        match missing.first() {
            None => Ok(found),
            Some(first) => Err(Error::data(
                table,
                format!(
                    "expected neighbors of every image, got none for {} of {}, e.g. {first}; try ldm retrieve neighbors",
                    missing.len(),
                    listing.items.len()
                ),
            )),
        }
    }
}
