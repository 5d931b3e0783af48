//! Global statistics for tiled decoding.

use tch::Tensor;

/// The source of values that a layer computes over a whole feature map: mean and deviation of a norm, keys and values of
/// an attention.
#[derive(Debug)]
pub enum NormStats<'a> {
    /// The layer's own input.
    Local,
    /// The layer's own input; the values are recorded, layer by layer in execution order.
    Record(&'a mut Vec<[Tensor; 2]>),
    /// Values recorded for another map, of which the input is a tile.
    Replay(std::slice::Iter<'a, [Tensor; 2]>),
}
