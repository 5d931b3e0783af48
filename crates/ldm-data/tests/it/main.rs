//! Tests of the crate from outside: one program of one module a subject.

#![allow(clippy::unwrap_used, reason = "clippy knows tests, not the functions beside them")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

mod cv_resize;
mod image_folder;
mod images;
mod labels;
mod loader;
mod real;
mod resize;
mod scenes;
mod tasks;
