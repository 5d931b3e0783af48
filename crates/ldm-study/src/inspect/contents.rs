//! Contents of a checkpoint by part and dtype.

use std::collections::BTreeMap;

use ldm_checkpoint::Checkpoint;
use ldm_core::device::dtype_name;
use tch::Kind;

/// Tensors and values of a checkpoint, by part and dtype.
#[derive(Debug)]
pub(super) struct WeightsContents {
    pub(super) tensors: usize,
    /// All values.
    pub(super) parameters: u64,
    /// Values by part.
    pub(super) parts: BTreeMap<String, u64>,
    /// Tensors by dtype.
    pub(super) dtypes: BTreeMap<String, usize>,
    /// The dtype of most values.
    pub(super) kind: Kind,
}

impl WeightsContents {
    pub(super) fn of(checkpoint: &Checkpoint) -> Self {
        let mut contents = Self {
            tensors: 0,
            parameters: 0,
            parts: BTreeMap::new(),
            dtypes: BTreeMap::new(),
            kind: Kind::Float,
        };
        let mut by_kind: Vec<(Kind, u64)> =
            [Kind::Float, Kind::Half, Kind::BFloat16, Kind::Double].map(|kind| (kind, 0)).into();
        for name in checkpoint.names() {
            let info = checkpoint.info(name).expect("a name of the file");
            let count = info.shape.iter().product::<i64>() as u64;
            contents.tensors += 1;
            contents.parameters += count;
            *contents.parts.entry(part(name)).or_default() += count;
            *contents.dtypes.entry(dtype_name(info.kind)).or_default() += 1;
            if let Some((_, all)) = by_kind.iter_mut().find(|(kind, _)| *kind == info.kind) {
                *all += count;
            }
        }
        if let Some((kind, _)) = by_kind.into_iter().max_by_key(|(_, all)| *all).filter(|(_, all)| *all > 0) {
            contents.kind = kind;
        }
        contents
    }
}

/// Returns the part of a name: its first component; buffers of the schedule have none.
fn part(name: &str) -> String {
    match name.split_once('.') {
        None => "(buffers)".into(),
        Some(("model", rest)) if rest.starts_with("diffusion_model.") => "model.diffusion_model".into(),
        Some((first, _)) => first.into(),
    }
}
