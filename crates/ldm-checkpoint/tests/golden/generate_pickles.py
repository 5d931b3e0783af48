"""Makes the golden files of tensors and values that PyTorch's `weights_only=True` reads, and of values that trainers save
next to the weights.

    python generate_pickles.py    # PyTorch 2.11, numpy, omegaconf
"""
import argparse
import datetime
import decimal
import fractions
import pathlib
import types
import uuid
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
METADATA = {"torch": torch.__version__}
warnings.filterwarnings("ignore")
torch.manual_seed(0)


def both_ways(name, value):
    torch.save(value, HERE / f"{name}.ckpt")
    torch.save(value, HERE / f"{name}_legacy.ckpt", _use_new_zipfile_serialization=False)


# --- tensors of every kind; `expected` is what the readers here make of them ---
base = torch.randn(3, 4)
with_attributes = torch.arange(4.0)
with_attributes.note = "an attribute"
parameter = torch.nn.Parameter(torch.arange(3.0))
parameter.note = "an attribute"
uncoalesced = torch.sparse_coo_tensor([[0, 2, 0], [1, 3, 1]], torch.tensor([1.0, 2.0, 3.0]), (3, 4))
hybrid = torch.sparse_coo_tensor([[1, 2]], torch.randn(2, 4), (3, 4))
thin = base * (base > 0.3)
wide = torch.tensor([0, 1, 2**15, 2**16 - 1])
tensors = {
    "attributes": with_attributes,
    "parameter": parameter,
    "complex64": torch.complex(base, -base),
    "complex128": torch.complex(base.double(), base.double()),
    "conjugate": torch.complex(base, base).conj(),
    "negative": torch.complex(base, base).conj().imag,
    "uint16": wide.to(torch.uint16),
    "uint32": (wide * 65537).to(torch.uint32),
    "uint64": (wide * 2**40).to(torch.uint64),
    "float8_e4m3fnuz": base.to(torch.float8_e4m3fnuz),
    "float8_e5m2fnuz": base.to(torch.float8_e5m2fnuz),
    "qint8": torch.quantize_per_tensor(base, 0.05, 3, torch.qint8),
    "quint8": torch.quantize_per_tensor(base, 0.05, 100, torch.quint8),
    "qint32": torch.quantize_per_tensor(base, 1e-6, -7, torch.qint32),
    "qchannel": torch.quantize_per_channel(
        base, torch.tensor([0.1, 0.02, 0.03]), torch.tensor([0, 5, -2]), 0, torch.qint8),
    "qchannel_last": torch.quantize_per_channel(
        base, torch.tensor([0.1, 0.02, 0.03, 0.04]), torch.tensor([0, 1, 2, 3]), 1, torch.quint8),
    "coo": uncoalesced,
    "coo_hybrid": hybrid,
    "coo_bool": torch.tensor([[True, False], [False, True]]).to_sparse(),
    "coo_empty": torch.zeros(2, 3).to_sparse(),
    "csr": thin.to_sparse_csr(),
    "csc": thin.to_sparse_csc(),
}


def expected(tensor):
    tensor = tensor.detach()
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.layout != torch.strided:
        return tensor.to_dense()
    if tensor.is_complex():
        return torch.view_as_real(tensor.resolve_conj())
    if tensor.dtype == torch.uint16:
        return tensor.to(torch.int32)
    if tensor.dtype in (torch.uint32, torch.uint64):
        return tensor.to(torch.int64)
    if "fnuz" in str(tensor.dtype):
        return tensor.float()
    return tensor.resolve_neg()


both_ways("kinds", tensors)
assert tensors["negative"].is_neg() and tensors["conjugate"].is_conj()
loaded = torch.load(HERE / "kinds.ckpt", weights_only=True)
assert all(torch.equal(expected(loaded[name]), expected(tensor)) for name, tensor in tensors.items())
save_file({name: expected(tensor).contiguous() for name, tensor in tensors.items()},
          HERE / "kinds.safetensors", metadata=METADATA)

# --- tensors that are refused by name ---
refused = {
    "bsr": thin.repeat(2, 1).to_sparse_bsr((2, 2)),
    "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "meta": torch.ones(2, device="meta"),
    "bits8": torch.ones(4, dtype=torch.uint8).view(torch.bits8),
    "huge": torch.sparse_coo_tensor([[0], [0]], torch.tensor([1.0]), (2**20, 2**20)),
}
for name, tensor in refused.items():
    # Beside another tensor it does no harm: an optimizer may hold any.
    torch.save({"state_dict": {"w": torch.ones(1)}, "optimizer": [tensor]}, HERE / f"beside_{name}.ckpt")
    torch.save({"w": torch.ones(1), name: tensor}, HERE / f"refused_{name}.ckpt")

# --- values next to the weights ---


@dataclass
class Structured:
    rate: float = 0.5
    name: Optional[str] = None
    anything: Any = None


@dataclass
class Holder:
    value: int = 1


OmegaConf.register_new_resolver("twice", lambda value: 2 * value, replace=True)
yaml = OmegaConf.create({"model": {"target": "x", "params": {"sizes": [1, 2, {"a": None}], "rate": 1e-4,
                                                             "path": pathlib.Path("a"), "raw": b"bytes"}},
                         "again": "${model.target}", "flag": True})
listed = OmegaConf.create([1, "two", {"three": 3.0}])
default = defaultdict(list)
default["a"].append(1)
inert = {
    "omegaconf": yaml,
    "omegaconf_list": listed,
    "datetime": datetime.datetime(2024, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    "date": datetime.date(2024, 2, 3),
    "time": datetime.time(4, 5),
    "timedelta": datetime.timedelta(days=1),
    "slice": slice(1, None, 2),
    "range": range(1, 10, 3),
    "frozenset": frozenset({1, 2}),
    "set": {"a", ("b", 1)},
    "bytes": b"some bytes",
    "bytearray": bytearray(b"some bytes"),
    "complex": 1 + 2j,
    "path": pathlib.PurePosixPath("a/b"),
    "windows_path": pathlib.PureWindowsPath("a\\b"),
    "posix_path": pathlib.Path("a/b"),
    "simple_namespace": types.SimpleNamespace(a=1, b=[2]),
    "namespace": argparse.Namespace(lr=1e-3, out=pathlib.Path("x")),
    "decimal": decimal.Decimal("1.50"),
    "uuid": uuid.UUID(int=7),
    "fraction": fractions.Fraction(1, 3),
    "defaultdict": default,
    "counter": Counter("hello"),
    "deque": deque([1, 2], maxlen=3),
    "ordered": OrderedDict(a=1),
    "numpy_scalar": np.float32(1.5),
    "numpy_int": np.int64(7),
    "numpy_array": np.arange(6.0).reshape(2, 3),
    "numpy_texts": np.array(["a", "bc"]),
    "numpy_random": np.random.get_state(),
    "generator": np.random.default_rng(0).bit_generator.state,
    "random": (3, tuple(range(5)), None),
    "torch_version": torch.torch_version.TorchVersion("2.11.0"),
    "size": torch.Size([1, 2]),
    "dtype": torch.bfloat16,
    "device": torch.device("cpu"),
    "layout": torch.sparse_coo,
    "surrogates": "caf\udce9.png",
    "big": 2**100,
    "itself": None,
}
own = []
own.append(own)
inert["itself"] = own
weights = {"w": torch.tensor([1.0, 2.0])}
for protocol in (2, 4, 5):
    torch.save({"state_dict": weights, "hyper_parameters": inert}, HERE / f"inert_{protocol}.ckpt",
               pickle_protocol=protocol)
torch.save({"state_dict": weights, "hyper_parameters": inert}, HERE / "inert_legacy.ckpt",
           _use_new_zipfile_serialization=False)

# --- state dicts under the names of wrappers ---
ones, zeros = {"a.w": torch.ones(2)}, {"a.w": torch.zeros(2)}
prefixed = lambda prefix, state: {prefix + name: tensor for name, tensor in state.items()}  # noqa: E731
for name, value in {
    "model_state_dict": {"model_state_dict": ones, "epoch": 3},
    "module": {"module": ones, "optimizer": {"state": {}}},
    "nested": {"model": {"state_dict": {"module": ones}}, "ema": zeros},
    "ema": {"ema": {"model": ones}, "step": 4},
    "model_and_ema": {"model": ones, "ema": zeros},
    "parallel": {"state_dict": prefixed("module.", ones)},
    "compiled": prefixed("module._orig_mod.", ones) | prefixed("module.b._orig_mod.", ones),
}.items():
    torch.save(value, HERE / f"wrapped_{name}.ckpt")

# --- NumPy's arrays, and the same as tensors ---
arrays = {
    "f8": np.arange(6.0).reshape(2, 3),
    "f4_fortran": np.asfortranarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
    "f2": np.linspace(-1, 1, 5, dtype=np.float16),
    "scalar": np.float64(2.5),
    "empty": np.zeros((0, 3), np.float32),
    **{kind: np.array([0, 1, 200 if kind == "u1" else 100], kind) for kind in ("i1", "i2", "i4", "i8", "u1")},
    "u2": np.array([0, 2**16 - 1], np.uint16),
    "u4": np.array([0, 2**32 - 1], np.uint32),
    "u8": np.array([0, 2**63 - 1], np.uint64),
    "bool": np.array([True, False]),
}
refused_arrays = {
    "big_endian": np.arange(3, dtype=">f4"),
    "texts": np.array(["a", "bc"]),
    "objects": np.array([{}, None], dtype=object),
    "structures": np.zeros(2, [("a", "<f4"), ("b", "<i8", (2,))]),
    "too_large": np.array([2**63], np.uint64),
}
np.savez(HERE / "arrays.npz", **arrays, **refused_arrays)
np.savez_compressed(HERE / "arrays_compressed.npz", **arrays, **refused_arrays)
wider = {"u2": np.int32, "u4": np.int64, "u8": np.int64}
save_file({name: torch.from_numpy(np.ascontiguousarray(array).astype(wider.get(name, array.dtype)).reshape(array.shape))
           for name, array in arrays.items()}, HERE / "arrays.safetensors", metadata=METADATA)
np.save(HERE / "array.npy", arrays["f4_fortran"])
