//! `ldm retrieve` and `ldm knn2img`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{DeviceArgs, GenerateArgs, ModelArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum RetrieveCommand {
    /// Writes a database of CLIP embeddings of images, or converts one of CompVis.
    #[command(
        after_help = "Examples:\n  ldm retrieve index photos.tar --clip clip-vit-large-patch14 --out photos.safetensors\n  ldm retrieve index data/rdm/retrieval_databases/openimages --out openimages.safetensors --partition"
    )]
    Index(IndexArgs),
    /// Finds the images of a database that are most similar to a text or an image.
    #[command(
        after_help = "Example:\n  ldm retrieve search photos.safetensors \"a red car\" --clip clip-vit-large-patch14"
    )]
    Search {
        /// Database of `ldm retrieve index`.
        database: PathBuf,
        #[command(flatten)]
        query: QueryArgs,
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Writes the nearest neighbors of each image of a training set, for training a retrieval-augmented model.
    #[command(
        after_help = "Example:\n  ldm retrieve neighbors train.safetensors --index photos.safetensors -k 4 --out neighbors.safetensors"
    )]
    Neighbors {
        /// Database of the training images.
        images: PathBuf,
        /// Database of the neighbors. Default: that of the training images, none of which is its own neighbor.
        #[arg(long, value_name = "DATABASE")]
        index: Option<PathBuf>,
        /// Neighbors per image.
        #[arg(short, default_value = "20")]
        k: NonZeroUsize,
        /// Compare with every image of a partitioned database.
        #[arg(long)]
        exact: bool,
        #[command(flatten)]
        out: DatabaseArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct IndexArgs {
    /// A folder, a .tar, .tar.gz or .zip, a config for its training set; or an .npz of CompVis, or a folder of these.
    pub(crate) images: PathBuf,
    /// CLIP model: a transformers folder. A database of CompVis needs none.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) clip: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) out: DatabaseArgs,
    /// Partition the database, so that a search reads a tenth of it and misses some neighbors.
    #[arg(long)]
    pub(crate) partition: bool,
    /// Images per batch.
    #[arg(long, default_value = "16")]
    pub(crate) batch_size: NonZeroUsize,
    /// Fail on the first unreadable image.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// Output file of a database.
#[derive(Debug, Args)]
pub(crate) struct DatabaseArgs {
    /// Output file.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// Replace an existing file.
    #[arg(long)]
    pub(crate) force: bool,
}

/// A query of a database.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// Text to search for.
    #[arg(required_unless_present = "image", conflicts_with = "image")]
    pub(crate) prompt: Option<String>,
    /// Image to search for.
    #[arg(long)]
    pub(crate) image: Option<PathBuf>,
    /// CLIP model: a transformers folder with its tokenizer; the one that the database was made with. Only models with a
    /// CLIP of their own need none.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) clip: Option<PathBuf>,
    /// Number of neighbors.
    #[arg(short, default_value = "10")]
    pub(crate) k: NonZeroUsize,
    /// Compare with every image of a partitioned database.
    #[arg(long)]
    pub(crate) exact: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Knn2imgArgs {
    #[command(flatten)]
    pub(crate) query: QueryArgs,
    /// Database of the neighbors. Default: no neighbors, the query alone.
    #[arg(long, value_name = "DATABASE")]
    pub(crate) index: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) generate: GenerateArgs,
}
