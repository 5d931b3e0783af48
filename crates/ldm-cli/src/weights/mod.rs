//! Files that models need beside themselves: what there is, and how it comes here whole and unaltered.
//!
//! A download goes into `FILE.part` beside its place and is renamed once its sha256 is right; what an interrupted one
//! left is gone on with. Nothing is downloaded but by `ldm weights get`.

mod copy;
mod download;
mod lock;
mod manifest;
mod part;
mod transfer;

pub(crate) use copy::install_copies;
pub(crate) use download::download;
pub(crate) use lock::Lock;
pub(crate) use manifest::{Manifest, RemoteFile, Resource};
pub(crate) use part::sha256;
