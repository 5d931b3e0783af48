//! Files of `torch.save`: the zip archive, the legacy pickle, the state dict in both, and the writer.

pub(crate) mod legacy;
pub(crate) mod state_dict;
pub(crate) mod writer;
pub(crate) mod zip;
pub(crate) mod zip_directory;
