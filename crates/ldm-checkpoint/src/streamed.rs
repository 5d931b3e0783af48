//! Tensors that are written without being in memory together.

use std::fmt;

use tch::Tensor;

use super::chunks::each_chunk;
use super::entry::TensorInfo;
use ldm_core::{Error, Result, files};

/// A tensor to be written, made when it is its turn.
pub struct Streamed<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its shape and dtype in the file.
    pub info: TensorInfo,
    /// Makes it.
    pub make: Box<dyn Fn() -> Result<Tensor> + 'a>,
}

impl<'a> Streamed<'a> {
    /// Tensors that are there already.
    pub fn each(tensors: &'a [(String, Tensor)]) -> Vec<Self> {
        let streamed = |(name, tensor): &'a (String, Tensor)| Self {
            name: name.clone(),
            info: TensorInfo { shape: tensor.size(), kind: tensor.kind() },
            make: Box::new(|| Ok(tensor.shallow_clone())),
        };
        tensors.iter().map(streamed).collect()
    }

    /// Its length in the file.
    pub(crate) fn bytes(&self) -> usize {
        self.info.shape.iter().product::<i64>() as usize * self.info.kind.elt_size_in_bytes()
    }

    /// Makes it and gives its bytes in order.
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
