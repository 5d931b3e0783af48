//! A tensor's bytes, a few megabytes at a time.

use tch::{Device, Tensor};

use ldm_core::Result;

/// Bytes of a tensor that are at hand while writing.
const CHUNK: usize = 4 << 20;

/// Gives the tensor's bytes in order, at most [`CHUNK`] at a time, whatever its layout and device.
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
