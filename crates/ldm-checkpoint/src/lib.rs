//! Model checkpoints: read without running code, loaded strictly, written.
//!
//! - [`Checkpoint`] opens safetensors, PyTorch's zip archive or its legacy pickle, single files or shards. The format
//!   is detected from the content. The file is memory-mapped; names and shapes are read at once, a tensor's bytes when
//!   it is requested.
//! - [`Checkpoint::load_into`] (a copy) and [`Checkpoint::load_mmap`] (memory-mapped, for inference) are the only ways
//!   for weights to enter a model, [`Checkpoint::copy_into`] for other tensors. Loading is strict: every name and every
//!   shape must match, both ways, or nothing changes and one error lists all mismatches.
//! - [`Checkpoint::floats`] and [`Checkpoint::number`] check shape, dtype and finiteness of tensors outside a model.
//! - [`KeyMap`] and [`StateDictMapping`] convert between the names and shapes of implementations;
//!   [`unsupported_kind`] detects files of other models.
//! - [`Npz`] and [`read_npy`] read NumPy's arrays; [`save_npz`] writes them.
//! - [`save`] writes safetensors, [`save_torch`] the `.ckpt` that CompVis' code reads.
//!
//! A pickle is a program. It is read by an interpreter that cannot call anything: it knows the few names that a state
//! dict is built of, and refuses a file that calls any other. The readers are fuzzed (targets `unpickler`,
//! `safetensors`, `npz` and `torch_zip` in `fuzz/`): any bytes give a checkpoint or one error, within a memory limit.

mod checkpoint;
mod chunks;
mod contents;
mod conversion;
mod ema;
mod entry;
mod file_dtype;
mod format;
mod join;
mod key_map;
mod load;
mod mapped_tensors;
mod memory;
mod npy;
mod npy_texts;
mod npz;
mod parse;
mod pickle;
mod prefixes;
mod reader;
mod requirements;
mod safetensors;
mod shards;
mod source;
mod source_file;
mod state_dict_mapping;
mod streamed;
mod torch;
mod unsupported_kind;

pub use checkpoint::Checkpoint;
pub use entry::TensorInfo;
pub use format::Format;
pub use key_map::KeyMap;
pub use npy::{NPY_MAGIC, decode_npy, npy_header, npy_shape, read_npy};
pub use npz::{Npz, save_npz};
#[doc(hidden)]
pub use parse::{Parsed, memory_limit, parse_bytes, parse_npz, parse_pickle};
pub use requirements::Axis;
pub use safetensors::{save, save_streamed};
pub use source_file::FileWatch;
pub use state_dict_mapping::{Shapes, StateDictMapping, TensorChange};
pub use streamed::Streamed;
pub use torch::writer::{save_torch, save_torch_streamed};
pub use unsupported_kind::unsupported_kind;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
