//! The neighbors of a training set.

use std::path::Path;

use ldm_core::Result;
use ldm_retrieval::{EmbeddingIndex, NeighborTable, Search};

use crate::Reporter;
use crate::context::bail;

/// Writes the table of the `k` nearest neighbors in the database `database` of each image of the database `images`, that of a
/// training set; they may be the same file, since no image is its own neighbor.
///
/// # Errors
/// Those of [`NeighborTable::write`], and when two CLIPs made the databases.
pub fn find_neighbors(
    images: &Path,
    database: &Path,
    k: usize,
    search: Search,
    out: &Path,
    reporter: &dyn Reporter,
) -> Result<()> {
    let (images, database) = (EmbeddingIndex::open(images)?, EmbeddingIndex::open(database)?);
    if let (Some(one), Some(other)) = (images.clip(), database.clip())
        && one != other
    {
        let (images, database) = (images.path().display(), database.path().display());
        bail!("{images}: expected embeddings of the CLIP of {database}, got those of another one");
    }
    let total = images.len() as u64;
    NeighborTable::write(out, &images, &database, k, search, &mut |done| {
        reporter.progress(done as u64, total);
    })?;
    reporter.progress_end();
    Ok(())
}
