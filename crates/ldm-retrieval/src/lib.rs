#![doc = include_str!("../README.md")]
//!
//! # Contents
//!
//! - [`EmbeddingIndex`] is a database of embeddings; [`IndexWriter`] writes one, [`add_compvis_file`] reads those of CompVis.
//! - [`EmbeddingIndex::search`] finds neighbors, of all images or of the nearest parts of the database ([`Search`]).
//! - [`EmbeddingIndex::context`] makes the context of a retrieval-augmented model, [`context()`] the one without neighbors.
//! - [`NeighborTable`] has the neighbors of a training set, found once.

mod best;
mod compvis;
mod context;
mod embedding_index;
mod index_writer;
mod names;
mod neighbor_table;
mod partition;
mod search;

pub use best::Neighbor;
pub use compvis::{add_compvis_file, compvis_files};
pub use context::context;
pub use embedding_index::EmbeddingIndex;
pub use index_writer::IndexWriter;
pub use neighbor_table::NeighborTable;
pub use search::Search;
