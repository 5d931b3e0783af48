//! The functions a pickle may call, and their values.

use tch::Kind;

use super::arena::{Arena, Id, Node, TensorParts};

/// The result of a call.
pub(crate) enum CallValue<'a> {
    /// An existing value.
    Same(Id),
    New(Node<'a>),
    /// A dict of the pairs in a list.
    OrderedDict(Id),
}

/// The most axes of a tensor, more than any weight has; sizes are copied for each tensor.
const AXES: usize = 32;

/// Values that trainers save next to the weights (callbacks, schedules, hyper-parameters). They are ignored: no weight
/// depends on them.
const INERT: [(&str, &str); 22] = [
    ("_codecs", "encode"),
    ("argparse", "Namespace"),
    ("builtins", "bytearray"),
    ("builtins", "complex"),
    ("builtins", "frozenset"),
    ("builtins", "set"),
    ("builtins", "slice"),
    ("__builtin__", "set"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
    ("collections", "deque"),
    ("lightning.fabric.utilities.data", "AttributeDict"),
    ("lightning_fabric.utilities.data", "AttributeDict"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pytorch_lightning.utilities.parsing", "AttributeDict"),
    ("torch", "device"),
];

/// Returns the value of `module.name(*arguments)`, without calling anything.
pub(crate) fn call<'a>(
    module: &str,
    name: &str,
    arguments: &[Id],
    arena: &Arena<'a>,
) -> Result<CallValue<'a>, String> {
    let wrong = || format!("invalid arguments of `{module}.{name}`");
    let first = arguments.first().copied();
    match (module, name) {
        ("collections", "OrderedDict") => {
            Ok(first.map_or_else(|| CallValue::New(Node::Dict(Vec::new())), CallValue::OrderedDict))
        }
        ("torch", "Size") => {
            first.filter(|id| arena.items(*id).is_some()).map(CallValue::Same).ok_or_else(wrong)
        }
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            let tensor = first.filter(|id| matches!(arena.get(*id), Node::Tensor(_)));
            tensor.map(CallValue::Same).ok_or_else(wrong)
        }
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
            let parts = tensor(arguments, None, arena).ok_or_else(wrong)?;
            Ok(CallValue::New(Node::Tensor(Box::new(parts))))
        }
        ("torch._utils", "_rebuild_tensor_v3") => {
            let dtype = arguments.get(6).and_then(|id| dtype(arena.get(*id))).ok_or_else(wrong)?;
            let parts = tensor(arguments, Some(dtype), arena).ok_or_else(wrong)?;
            Ok(CallValue::New(Node::Tensor(Box::new(parts))))
        }
        _ if INERT.contains(&(module, name)) => Ok(CallValue::New(Node::Inert)),
        _ => Err(refusal("call", module, name)),
    }
}

/// Returns the error text for an unknown function.
pub(crate) fn refusal(verb: &str, module: &str, name: &str) -> String {
    let (module, name) = (module.escape_debug(), name.escape_debug());
    format!("refused: this file wants to {verb} `{module}.{name}`, which no checkpoint needs")
}

/// Storage, offset, size and stride; later arguments are ignored.
fn tensor(arguments: &[Id], dtype: Option<Kind>, arena: &Arena) -> Option<TensorParts> {
    let [storage, offset, shape, strides, ..] = *arguments else { return None };
    let Node::Storage(storage) = *arena.get(storage) else { return None };
    let sizes = |id: Id| -> Option<Vec<i64>> {
        let items = arena.items(id).filter(|items| items.len() <= AXES)?;
        items.iter().map(|item| arena.int(*item)).collect()
    };
    let (shape, strides) = (sizes(shape)?, sizes(strides)?);
    Some(TensorParts { storage, offset: arena.int(offset)?, shape, strides, dtype })
}

/// Returns the dtype of `torch.float32` and similar names.
fn dtype(node: &Node) -> Option<Kind> {
    let Node::Global("torch", name) = node else { return None };
    Some(match *name {
        "float64" => Kind::Double,
        "float32" => Kind::Float,
        "float16" => Kind::Half,
        "bfloat16" => Kind::BFloat16,
        "float8_e4m3fn" => Kind::Float8e4m3fn,
        "float8_e5m2" => Kind::Float8e5m2,
        "int64" => Kind::Int64,
        "int32" => Kind::Int,
        "int16" => Kind::Int16,
        "int8" => Kind::Int8,
        "uint8" => Kind::Uint8,
        "bool" => Kind::Bool,
        _ => return None,
    })
}

/// Returns the dtype of a storage's class: `torch.FloatStorage`, `torch.cuda.FloatStorage`.
pub(crate) fn storage_kind(class: &Node) -> Result<Kind, String> {
    let Node::Global(module, name) = class else {
        return Err("damaged pickle: a storage without a class".into());
    };
    let kind = match (*module, *name) {
        ("torch.storage", "UntypedStorage") => Some(Kind::Uint8),
        ("torch" | "torch.cuda", name) => match name {
            "DoubleStorage" => Some(Kind::Double),
            "FloatStorage" => Some(Kind::Float),
            "HalfStorage" => Some(Kind::Half),
            "BFloat16Storage" => Some(Kind::BFloat16),
            "LongStorage" => Some(Kind::Int64),
            "IntStorage" => Some(Kind::Int),
            "ShortStorage" => Some(Kind::Int16),
            "CharStorage" => Some(Kind::Int8),
            "ByteStorage" | "UntypedStorage" => Some(Kind::Uint8),
            "BoolStorage" => Some(Kind::Bool),
            _ => None,
        },
        _ => None,
    };
    kind.ok_or_else(|| format!("unsupported storage `{}.{}`", module.escape_debug(), name.escape_debug()))
}
