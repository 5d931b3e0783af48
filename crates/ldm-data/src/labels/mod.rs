//! Labels of stored images: captions, classes, boxes, label maps.

pub(crate) mod boxes;
pub(crate) mod caption_file;
pub(crate) mod classes;
pub(crate) mod label_maps;
pub(crate) mod sidecar;
