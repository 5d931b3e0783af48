//! Classes of values that trainers save next to the weights: callbacks, schedules, hyper-parameters.

/// Returns whether a call of `module.name` creates a value on which no weight depends. It is passed over, and nothing is
/// called.
///
/// Python 3 writes the names that Python 2 had (`__builtin__.xrange`) in a pickle of protocol 2, which is PyTorch's.
pub(super) fn is_inert(module: &str, name: &str) -> bool {
    let names: &[&str] = match module {
        "_codecs" => &["encode"],
        "addict.addict" => &["Dict"],
        "argparse" => &["Namespace"],
        "builtins" | "__builtin__" => {
            &["bytearray", "bytes", "complex", "frozenset", "range", "set", "slice", "xrange"]
        }
        "box.box" => &["Box"],
        "collections" => &["Counter", "deque"],
        "datetime" => &["date", "datetime", "time", "timedelta", "timezone"],
        "decimal" => &["Decimal"],
        "easydict" => &["EasyDict"],
        "fractions" => &["Fraction"],
        "lightning.fabric.utilities.data"
        | "lightning_fabric.utilities.data"
        | "pytorch_lightning.utilities.parsing" => &["AttributeDict"],
        "ml_collections.config_dict.config_dict" => &["ConfigDict", "FrozenConfigDict"],
        "munch" => &["Munch"],
        "numpy" => &["dtype"],
        "numpy._core.multiarray" | "numpy.core.multiarray" => &["_reconstruct", "scalar"],
        "numpy._core.numeric" | "numpy.core.numeric" => &["_frombuffer"],
        "numpy.random._pickle" => &["__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"],
        "omegaconf.base" => &["ContainerMetadata", "Metadata"],
        "omegaconf.dictconfig" => &["DictConfig"],
        "omegaconf.listconfig" => &["ListConfig"],
        "omegaconf.nodes" => &[
            "AnyNode",
            "BooleanNode",
            "BytesNode",
            "EnumNode",
            "FloatNode",
            "IntegerNode",
            "InterpolationResultNode",
            "PathNode",
            "StringNode",
        ],
        "omegaconf.omegaconf" => &["UnionNode"],
        "pathlib" | "pathlib._local" => {
            &["Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"]
        }
        "torch" => &["device"],
        "torch.torch_version" => &["TorchVersion"],
        "types" => &["SimpleNamespace"],
        "uuid" => &["SafeUUID", "UUID"],
        "yacs.config" => &["CfgNode"],
        _ => &[],
    };
    names.contains(&name)
}
