//! Databases of image embeddings: [`index_images`], [`find_neighbors`] of a training set, and [`RetrievalQuery`] by text or
//! image.

mod index_images;
mod query;
mod table;

pub use index_images::{IndexOptions, index_images};
pub use query::{NamedNeighbor, RetrievalQuery, Retriever};
pub use table::find_neighbors;
