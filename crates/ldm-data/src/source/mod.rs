//! Files of image sets, wherever they are: folders, archives, shards.

pub(crate) mod data_paths;
pub(crate) mod missing;
pub(crate) mod names;
pub(crate) mod one_or_many;
pub(crate) mod paired_files;
pub(crate) mod shards;
pub(crate) mod store;
