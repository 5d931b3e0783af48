//! What a layer takes of a whole map.

use tch::Tensor;

/// Where a layer has from what it takes of a whole map: a norm mean and deviation, an attention keys and values.
#[derive(Debug)]
pub enum NormStats<'a> {
    /// From the map it is given, as ever.
    Local,
    /// Likewise, and it is noted, layer by layer in the order of running.
    Record(&'a mut Vec<[Tensor; 2]>),
    /// From what was noted of another map, of which this one is a part.
    Replay(std::slice::Iter<'a, [Tensor; 2]>),
}
