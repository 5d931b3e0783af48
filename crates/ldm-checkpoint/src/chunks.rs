//! Copying a tensor's bytes in chunks of a few megabytes.

use tch::{Device, Tensor};

use ldm_core::Result;

/// Bytes of a tensor that are in CPU memory while writing.
const CHUNK: usize = 4 << 20;

/// Passes the tensor's bytes to `put` in order, at most [`CHUNK`] at a time, for any memory format and device.
pub(crate) fn each_chunk(
    tensor: &Tensor,
    buffer: &mut Vec<u8>,
    put: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let width = tensor.kind().elt_size_in_bytes();
    let flat = tensor.detach().contiguous().view(-1);
    let (count, step) = (flat.numel(), CHUNK / width);
    for start in (0..count).step_by(step) {
        let length = step.min(count - start);
        let part = flat.narrow(0, start as i64, length as i64).to_device(Device::Cpu);
        buffer.resize(length * width, 0);
        part.f_copy_data_u8(buffer, length)?;
        put(buffer)?;
    }
    Ok(())
}
