//! Weights: checkpoints of every kind, read without running code and loaded strictly.
//!
//! [`Checkpoint::open`] tells safetensors, PyTorch's zip and its older pickle apart by content, maps the file and
//! reads names and shapes; a tensor's bytes are read when it is asked for. [`Checkpoint::load_into`] is the only way
//! weights enter a model: every name and every shape must fit, both ways, or nothing changes.
//!
//! A pickle is a program. Here it is read by a machine that has no way to call anything: it knows the few names a
//! state dict is built of, and refuses a file that asks to call any other.

mod arena;
mod checkpoint;
mod cursor;
mod entry;
mod globals;
mod key_map;
mod load;
mod pickle;
mod safetensors;
mod sniff;
mod state_dict;
mod torch_legacy;
mod torch_zip;
mod zip_directory;

pub use checkpoint::{Checkpoint, Format};
pub use entry::TensorInfo;
pub use key_map::KeyMap;
pub use safetensors::save;
