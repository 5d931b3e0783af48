//! The functions a pickle may call, and their values.

use super::arena::{Arena, Id, Node};
use super::inert::is_inert;
use super::tensors;
use crate::file_dtype::FileDtype;

/// The result of a call.
pub(crate) enum CallValue<'a> {
    /// An existing value.
    Same(Id),
    New(Node<'a>),
    /// A dict of the pairs in a list.
    OrderedDict(Id),
}

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
        // Its argument is the function of missing values, which is never called.
        ("collections", "defaultdict") => Ok(CallValue::New(Node::Dict(Vec::new()))),
        ("torch", "Size") => {
            first.filter(|id| arena.items(*id).is_some()).map(CallValue::Same).ok_or_else(wrong)
        }
        ("torch.serialization", "_get_layout") => {
            first.filter(|id| arena.text(*id).is_some()).map(CallValue::Same).ok_or_else(wrong)
        }
        // The class of None, among the types of a config's fields.
        ("builtins" | "__builtin__", "type") if arguments.len() == 1 => {
            let none = first.filter(|id| matches!(arena.get(*id), Node::None));
            none.map(CallValue::Same).ok_or_else(|| refusal("call", module, name))
        }
        ("torch._tensor", "_rebuild_from_type_v2") => with_type(arguments, arena).ok_or_else(wrong)?,
        ("torch._utils", name) if name.starts_with("_rebuild_") => {
            rebuild(name, arguments, arena).ok_or_else(wrong)?
        }
        ("torch.nn.parameter", "Parameter") => {
            first.filter(|id| arena.is_tensor(*id)).map(CallValue::Same).ok_or_else(wrong)
        }
        ("torch" | "torch.cuda", class) if class.ends_with("Tensor") => Ok(CallValue::New(Node::BlankTensor)),
        ("torch.sparse" | "torch.cuda.sparse", class) if class.ends_with("Tensor") => {
            Ok(CallValue::New(Node::OtherTensor("a sparse tensor of an early version of PyTorch".into())))
        }
        _ if is_inert(module, name) => Ok(CallValue::New(Node::Inert)),
        _ => Err(refusal("call", module, name)),
    }
}

/// Returns the error text for an unknown function.
pub(crate) fn refusal(verb: &str, module: &str, name: &str) -> String {
    let (module, name) = (module.escape_debug(), name.escape_debug());
    format!("refused: this file wants to {verb} `{module}.{name}`, which no checkpoint needs")
}

/// The value of a function of `torch._utils`; `None` for invalid arguments.
fn rebuild<'a>(name: &str, arguments: &[Id], arena: &Arena<'a>) -> Option<Result<CallValue<'a>, String>> {
    let new = |node: Node<'a>| Ok(CallValue::New(node));
    let other = |kind: &str| Some(new(Node::OtherTensor(kind.into())));
    match name {
        "_rebuild_parameter" | "_rebuild_parameter_with_state" | "_rebuild_device_tensor_from_cpu_tensor" => {
            let tensor = arguments.first().copied().filter(|id| arena.is_tensor(*id))?;
            Some(Ok(CallValue::Same(tensor)))
        }
        "_rebuild_tensor" | "_rebuild_tensor_v2" => tensors::with_flags(arguments, None, 6, arena).map(new),
        "_rebuild_tensor_v3" => {
            let Node::Global("torch", dtype) = *arena.get(*arguments.get(6)?) else { return None };
            let Some(known) = FileDtype::by_name(dtype) else {
                return other(&format!("a tensor of torch.{}", dtype.escape_debug()));
            };
            tensors::with_flags(arguments, Some(known), 7, arena).map(new)
        }
        "_rebuild_qtensor" => tensors::quantized(arguments, arena).map(new),
        "_rebuild_sparse_tensor" => tensors::sparse(arguments, arena).map(new),
        "_rebuild_nested_tensor" => other("a nested tensor"),
        "_rebuild_meta_tensor_no_storage" => other("a tensor without values (device meta)"),
        "_rebuild_wrapper_subclass" => other("a tensor subclass without storage"),
        "_rebuild_device_tensor_from_numpy" | "_rebuild_xla_tensor" => {
            other("a tensor of another device's array")
        }
        _ => Some(Err(refusal("call", "torch._utils", name))),
    }
}

/// The value of `_rebuild_from_type_v2(function, class, arguments, attributes)`: a tensor with attributes, or a subclass.
fn with_type<'a>(arguments: &[Id], arena: &Arena<'a>) -> Option<Result<CallValue<'a>, String>> {
    let [function, class, inner, _] = *arguments else { return None };
    let (Node::Global("torch._utils", name), Node::Global(module, class)) =
        (arena.get(function), arena.get(class))
    else {
        return None;
    };
    let inner = arena.items(inner)?;
    match (*module, *class) {
        ("torch", "Tensor") | ("torch.nn.parameter", "Parameter") => rebuild(name, inner, arena),
        (module, class) => {
            let kind = format!("a tensor of the class {}.{}", module.escape_debug(), class.escape_debug());
            Some(Ok(CallValue::New(Node::OtherTensor(kind.into()))))
        }
    }
}

/// Returns the dtype of a storage's class: `torch.FloatStorage`, `torch.cuda.FloatStorage`.
pub(crate) fn storage_dtype(class: &Node) -> Result<FileDtype, String> {
    let Node::Global(module, name) = class else {
        return Err("damaged pickle: a storage without a class".into());
    };
    let dtype = match *module {
        "torch" | "torch.cuda" | "torch.storage" => FileDtype::by_storage(name),
        _ => None,
    };
    dtype.ok_or_else(|| format!("unsupported storage `{}.{}`", module.escape_debug(), name.escape_debug()))
}
