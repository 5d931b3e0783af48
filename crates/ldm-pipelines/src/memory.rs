//! Checks of image sizes before memory is taken for them.

use ldm_core::{Result, memory};
use tch::{Device, Kind};

/// Network that is about to run on images.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    pub(crate) device: Device,
    pub(crate) kind: Kind,
    /// Channels of a convolution at full resolution; 0 for a network that works in tiles.
    pub(crate) channels: i64,
}

impl Footprint {
    /// Refuses `count` images of `[height, width]`, of which one at a time is in the network, if they cannot fit in the
    /// memory of the CPU: counted are the images twice, and the input and output of one convolution.
    ///
    /// # Errors
    /// [`ldm_core::Error::Invalid`] with both amounts.
    pub(crate) fn check(self, count: i64, [height, width]: [i64; 2]) -> Result<()> {
        if self.device != Device::Cpu {
            return Ok(()); // CUDA fails at the allocation, with its own message
        }
        let element = self.kind.elt_size_in_bytes() as f64;
        let pixel = 2. * (3. * 4. * count as f64 + self.channels as f64 * element);
        let got = format!("{count} of {height}x{width}");
        memory::check("images", got, height as f64 * width as f64 * pixel)
    }
}
