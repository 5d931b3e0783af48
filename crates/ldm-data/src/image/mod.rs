//! Pixels: decoding, resizing, cropping.

pub(crate) mod cv_resize;
pub(crate) mod decode;
pub(crate) mod float_image;
pub(crate) mod interpolation;
pub(crate) mod npy;
pub(crate) mod placement;
pub(crate) mod resize;
pub(crate) mod transform;
