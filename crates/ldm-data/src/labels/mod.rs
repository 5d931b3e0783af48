//! Labels of stored images: captions, classes, boxes, label maps.

pub(crate) mod boxes;
pub(crate) mod caption_file;
pub(crate) mod caption_table;
pub(crate) mod classes;
pub(crate) mod imagenet;
pub(crate) mod label_maps;
pub(crate) mod open_images;
pub(crate) mod sidecar;
