//! Tensors created one by one while writing, never all in memory.

use std::fmt;

use tch::Tensor;

use crate::chunks::each_chunk;
use crate::entry::TensorInfo;
use ldm_core::{Error, Result, files};

/// A tensor to write, created when the writer reaches it.
pub struct Streamed<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its shape and dtype in the file.
    pub info: TensorInfo,
    /// Creates it.
    pub make: Box<dyn Fn() -> Result<Tensor> + 'a>,
}

impl<'a> Streamed<'a> {
    /// Wraps existing tensors.
    pub fn each(tensors: &'a [(String, Tensor)]) -> Vec<Self> {
        let streamed = |(name, tensor): &'a (String, Tensor)| Self {
            name: name.clone(),
            info: TensorInfo { shape: tensor.size(), kind: tensor.kind() },
            make: Box::new(|| Ok(tensor.shallow_clone())),
        };
        tensors.iter().map(streamed).collect()
    }

    /// Returns its length in the file.
    pub(crate) fn bytes(&self) -> usize {
        self.info.shape.iter().product::<i64>() as usize * self.info.kind.elt_size_in_bytes()
    }

    /// Creates it and passes its bytes to `put` in order.
    pub(crate) fn write(
        &self,
        buffer: &mut Vec<u8>,
        put: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let tensor = (self.make)()?;
        if tensor.size() != self.info.shape || tensor.kind() != self.info.kind {
            let (name, info) = (&self.name, &self.info);
            let (shape, kind) = (tensor.size(), tensor.kind());
            return Err(Error::invalid(format!(
                "tensor `{name}`: expected {info:?}, got {shape:?} of {kind:?}"
            )));
        }
        each_chunk(&tensor, buffer, &mut |bytes: &[u8]| {
            files::stopping()?;
            put(bytes)
        })
    }
}

impl fmt::Debug for Streamed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("name", &self.name).field("info", &self.info).finish_non_exhaustive()
    }
}
