//! Single tensors of a file, without a copy.

use tch::Tensor;

use crate::Checkpoint;
use ldm_core::Result;

impl Checkpoint {
    /// The bytes of the tensor `name`, little-endian and in order, memory-mapped; `None` if there is no such tensor, or if
    /// the file stores it in another form (compressed, strided, of a dtype without a counterpart).
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.source(name)?.bytes(&self.files)
    }

    /// Reads the tensor `name` as [`Checkpoint::tensor`], over the pages of the file where that is possible: only the parts
    /// that are used are read. The file is mapped anew by each call.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`], and [`Error::Io`](ldm_core::Error::Io) when the file cannot be mapped again.
    pub fn mapped(&self, name: &str) -> Result<Tensor> {
        let pages = self.pages()?;
        match self.source(name).and_then(|source| source.map_tensor(&pages)) {
            Some(tensor) => Ok(tensor),
            None => self.tensor(name),
        }
    }
}
