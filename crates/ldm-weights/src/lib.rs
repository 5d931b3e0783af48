//! Downloads of additional files of models and metrics: listed in a [`Manifest`], resumed, verified, [`install`]ed.
//!
//! A download goes into `FILE.part` next to its destination and is renamed once its sha256 is right; an interrupted one is
//! resumed. Only [`install`] from [`WeightsSource::Network`] uses the network.

mod archive;
mod copy;
mod download;
mod event;
mod install;
mod lock;
mod manifest;
mod part;
mod transfer;

pub use archive::RemoteArchive;
pub use event::DownloadEvent;
pub use install::{WeightsSource, install, is_installed};
pub use manifest::{Manifest, RemoteFile, Resource, megabytes};
pub use part::sha256;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
