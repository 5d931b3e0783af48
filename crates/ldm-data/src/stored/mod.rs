//! The dataset of stored images.

pub(crate) mod balance;
pub(crate) mod images;
pub(crate) mod images_config;
pub(crate) mod listing;
pub(crate) mod listing_labels;
pub(crate) mod neighbors_config;
