//! Checkpoints of every kind, read without running code and loaded strictly.
//!
//! [`Checkpoint::open`] tells safetensors, PyTorch's zip and its older pickle apart by content, maps the file and
//! reads names and shapes; a tensor's bytes are read when it is asked for. [`Checkpoint::load_into`] is the only way
//! weights enter a model: every name and every shape must fit, both ways, or nothing changes.
//!
//! A pickle is a program. Here it is read by a machine that has no way to call anything: it knows the few names a
//! state dict is built of, and refuses a file that asks to call any other.

mod arena;
mod checkpoint;
mod chunks;
mod cursor;
mod entry;
mod globals;
mod join;
mod key_map;
mod layout;
mod load;
mod memory;
mod parse;
mod pickle;
mod pickle_writer;
mod safetensors;
mod shards;
mod sniff;
mod source;
mod state_dict;
mod streamed;
mod torch_legacy;
mod torch_writer;
mod torch_zip;
mod unsupported_kind;
mod zip_directory;

pub use checkpoint::{Checkpoint, Format};
pub use entry::TensorInfo;
pub use key_map::KeyMap;
pub use layout::{Shapes, StateDictMapping, TensorChange};
#[doc(hidden)]
pub use parse::{Parsed, memory_limit, parse_bytes, parse_pickle};
pub use safetensors::{save, save_streamed};
pub use streamed::Streamed;
pub use torch_writer::{save_torch, save_torch_streamed};
pub use unsupported_kind::unsupported_kind;
