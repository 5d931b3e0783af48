//! The tests of `ldm-data`.

#![allow(clippy::unwrap_used, reason = "clippy exempts test functions only, not their helpers")]
#![allow(clippy::print_stdout, reason = "skipped tests print a note")]

mod balance;
mod cv_resize;
mod image_folder;
mod images;
mod labels;
mod loader;
mod neighbors;
mod real;
mod resize;
mod scenes;
mod sources;
mod spellings;
mod tasks;
