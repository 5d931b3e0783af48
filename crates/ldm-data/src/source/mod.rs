//! Files of image sets, wherever they are: folders, archives, shards.

mod archive;
pub(crate) mod data_paths;
mod folder;
pub(crate) mod missing;
pub(crate) mod names;
mod nested_tar;
pub(crate) mod one_or_many;
pub(crate) mod paired_files;
pub(crate) mod shards;
pub(crate) mod store;
mod tar_index;
mod zip_index;
