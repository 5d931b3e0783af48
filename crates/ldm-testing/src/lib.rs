//! The test harness of the workspace: [`Golden`] files and comparisons, [`tiny`] configs, and a [`Sandbox`] to run the
//! program in. A development dependency only; it is not published.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod claiming_png;
mod golden;
mod sandbox;
mod shared_data;
pub mod tiny;

pub use claiming_png::claiming_png;
pub use golden::{Golden, assert_close, fill_weights, filled, relative_l2};
pub use sandbox::{Sandbox, listing, text};
pub use shared_data::shared_data;
