//! The names a pickle may ask to call, and what each of them stands for.

use tch::Kind;

use super::arena::{Arena, Id, Node, TensorParts};

/// What a call makes.
pub(crate) enum Made<'a> {
    /// A value that was there before.
    Same(Id),
    New(Node<'a>),
    /// A dict of the pairs in this list.
    OrderedDict(Id),
}

/// More axes than any weight has; a tensor's sizes are copied once for each tensor.
const AXES: usize = 32;

/// Values that trainers keep beside the weights (callbacks, schedules, hyper-parameters). They are read as nothing:
/// no weight depends on one.
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

/// What `module.name(*arguments)` stands for, without calling anything.
pub(crate) fn call<'a>(
    module: &str,
    name: &str,
    arguments: &[Id],
    arena: &Arena<'a>,
) -> Result<Made<'a>, String> {
    let wrong = || format!("it calls `{module}.{name}` with arguments that make no sense");
    let first = arguments.first().copied();
    match (module, name) {
        ("collections", "OrderedDict") => {
            Ok(first.map_or_else(|| Made::New(Node::Dict(Vec::new())), Made::OrderedDict))
        }
        ("torch", "Size") => first.filter(|id| arena.items(*id).is_some()).map(Made::Same).ok_or_else(wrong),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            let tensor = first.filter(|id| matches!(arena.get(*id), Node::Tensor(_)));
            tensor.map(Made::Same).ok_or_else(wrong)
        }
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
            let parts = tensor(arguments, None, arena).ok_or_else(wrong)?;
            Ok(Made::New(Node::Tensor(Box::new(parts))))
        }
        ("torch._utils", "_rebuild_tensor_v3") => {
            let dtype = arguments.get(6).and_then(|id| dtype(arena.get(*id))).ok_or_else(wrong)?;
            let parts = tensor(arguments, Some(dtype), arena).ok_or_else(wrong)?;
            Ok(Made::New(Node::Tensor(Box::new(parts))))
        }
        _ if INERT.contains(&(module, name)) => Ok(Made::New(Node::Inert)),
        _ => Err(refusal("call", module, name)),
    }
}

/// The sentence about a name that is not known here.
pub(crate) fn refusal(verb: &str, module: &str, name: &str) -> String {
    let (module, name) = (module.escape_debug(), name.escape_debug());
    format!("this file asks to {verb} `{module}.{name}`, which a checkpoint has no need of")
}

/// Storage, offset, size and stride, and what follows them does not matter.
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

/// `torch.float32` and its like.
fn dtype(node: &Node) -> Option<Kind> {
    let Node::NormStats("torch", name) = node else { return None };
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

/// The dtype of a storage's class: `torch.FloatStorage`, `torch.cuda.FloatStorage`.
pub(crate) fn storage_kind(class: &Node) -> Result<Kind, String> {
    let Node::NormStats(module, name) = class else { return Err("a storage without a class".into()) };
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
    kind.ok_or_else(|| {
        format!("storages of `{}.{}` are not supported", module.escape_debug(), name.escape_debug())
    })
}
