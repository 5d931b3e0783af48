//! Arguments of the functions that rebuild a pickled tensor (`torch/_utils.py`).

use super::arena::{Arena, Id, Node, SparseLayout, SparseParts, TensorChangeParts, TensorParts};
use crate::file_dtype::FileDtype;

/// The most axes of a tensor, more than any weight has; sizes are copied for each tensor.
const AXES: usize = 32;

/// Integers of a tuple or a list.
fn sizes(id: Id, arena: &Arena) -> Option<Vec<i64>> {
    let items = arena.items(id).filter(|items| items.len() <= AXES)?;
    items.iter().map(|item| arena.int(*item)).collect()
}

/// Reads storage, offset, size and stride; later arguments are ignored.
pub(super) fn dense(arguments: &[Id], dtype: Option<FileDtype>, arena: &Arena) -> Option<TensorParts> {
    let [storage, offset, shape, strides, ..] = *arguments else { return None };
    let Node::Storage(storage) = *arena.get(storage) else { return None };
    let (shape, strides) = (sizes(shape, arena)?, sizes(strides, arena)?);
    let change = TensorChangeParts::None;
    Some(TensorParts { storage, offset: arena.int(offset)?, shape, strides, dtype, change })
}

/// Reads a dense tensor of `_rebuild_tensor_v2` or `_v3`, whose argument `flags` is a dict of the bits `conj` and `neg`.
pub(super) fn with_flags<'a>(
    arguments: &[Id],
    dtype: Option<FileDtype>,
    flags: usize,
    arena: &Arena<'a>,
) -> Option<Node<'a>> {
    let mut parts = dense(arguments, dtype, arena)?;
    let bit = |name| {
        let value = arguments.get(flags).and_then(|flags| arena.value(*flags, name));
        value.is_some_and(|value| matches!(arena.get(value), Node::Bool(true)))
    };
    let (conjugate, negative) = (bit("conj"), bit("neg"));
    if conjugate || negative {
        parts.change = TensorChangeParts::Signed { conjugate, negative };
    }
    Some(Node::Tensor(Box::new(parts)))
}

/// Reads the arguments of `_rebuild_qtensor`: those of a dense tensor, then the quantizer's parameters.
pub(super) fn quantized<'a>(arguments: &[Id], arena: &Arena<'a>) -> Option<Node<'a>> {
    let mut parts = dense(arguments, None, arena)?;
    let [scheme, first, second, rest @ ..] = arena.items(*arguments.get(4)?)? else { return None };
    let Node::Global("torch", scheme) = *arena.get(*scheme) else { return None };
    parts.change = match (scheme, rest) {
        ("per_tensor_affine", _) => {
            TensorChangeParts::Quantized { scale: arena.number(*first)?, zero_point: arena.number(*second)? }
        }
        ("per_channel_affine", [axis]) if is_dense(*first, arena) && is_dense(*second, arena) => {
            let axis = usize::try_from(arena.int(*axis)?).ok()?;
            TensorChangeParts::QuantizedByChannel { scales: *first, zero_points: *second, axis }
        }
        _ => {
            let kind = format!("a quantized tensor of torch.{}", scheme.escape_debug());
            return Some(Node::OtherTensor(kind.into()));
        }
    };
    Some(Node::Tensor(Box::new(parts)))
}

/// Reads the arguments of `_rebuild_sparse_tensor`: a layout, and the tensors and the size.
pub(super) fn sparse<'a>(arguments: &[Id], arena: &Arena<'a>) -> Option<Node<'a>> {
    let [layout, data] = *arguments else { return None };
    let layout = arena.text(layout)?;
    let (layout, shape) = match (layout, arena.items(data)?) {
        ("torch.sparse_coo", [indices, values, shape, ..]) => {
            (SparseLayout::Coo { indices: *indices, values: *values }, *shape)
        }
        ("torch.sparse_csr" | "torch.sparse_csc", [bounds, across, values, shape]) => {
            let by_rows = layout == "torch.sparse_csr";
            let (bounds, across, values) = (*bounds, *across, *values);
            (SparseLayout::Compressed { bounds, across, values, by_rows }, *shape)
        }
        _ => {
            let kind = format!("a sparse tensor of {}", layout.escape_debug().take(64).collect::<String>());
            return Some(Node::OtherTensor(kind.into()));
        }
    };
    let parts = match layout {
        SparseLayout::Coo { indices, values } => vec![indices, values],
        SparseLayout::Compressed { bounds, across, values, .. } => vec![bounds, across, values],
    };
    if !parts.into_iter().all(|part| is_dense(part, arena)) {
        return None;
    }
    Some(Node::Sparse(Box::new(SparseParts { layout, shape: sizes(shape, arena)? })))
}

/// Returns whether the value is a tensor that needs no other.
fn is_dense(id: Id, arena: &Arena) -> bool {
    let plain = |parts: &TensorParts| parts.change == TensorChangeParts::None;
    matches!(arena.get(id), Node::Tensor(parts) if plain(parts))
}
