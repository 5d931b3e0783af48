"""Makes the golden files of ldm-checkpoint: checkpoints of PyTorch, and hostile ones.

    LDM_REF=FOLDER python generate.py    # see docs/tools/compvis_reference.py
"""
import io, os, pickle, struct, subprocess, sys, warnings, zipfile
from collections import Counter, OrderedDict
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[3] / "docs/tools")]
warnings.filterwarnings("ignore")

import numpy as np
import torch
from safetensors.torch import save_file

import compvis_reference  # noqa: F401  makes CompVis' code importable
from pytorch_lightning.callbacks.model_checkpoint import ModelCheckpoint
from pytorch_lightning.utilities.parsing import AttributeDict

torch.set_num_threads(1)
torch.manual_seed(0)
COMMIT = subprocess.run(
    ["git", "-C", os.environ["LDM_REF"] + "/latent-diffusion", "rev-parse", "HEAD"], capture_output=True, text=True
).stdout.strip()
METADATA = {"latent-diffusion": COMMIT, "torch": torch.__version__}


def expected(name, tensors, **more):
    copies = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    save_file(copies, HERE / f"{name}.safetensors", metadata=METADATA | more)


def both_ways(name, value):
    torch.save(value, HERE / f"{name}.ckpt")
    torch.save(value, HERE / f"{name}_legacy.ckpt", _use_new_zipfile_serialization=False)


# --- a checkpoint of Lightning 1.4: weights, their EMA, and the trainer's state ---
class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Sequential(OrderedDict(
            conv=torch.nn.Conv2d(3, 4, 3), norm=torch.nn.GroupNorm(2, 4), out=torch.nn.Linear(4, 2)))
        self.register_buffer("betas", torch.linspace(1e-4, 2e-2, 10, dtype=torch.float64))
        self.register_buffer("steps", torch.tensor(7))


tiny = Tiny()
optimizer = torch.optim.AdamW(tiny.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=[lambda step: 0.5**step])
multi_step = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])  # its milestones are a Counter
for _ in range(2):
    optimizer.zero_grad()
    tiny.model.out(tiny.model.norm(tiny.model.conv(torch.randn(1, 3, 5, 5))).mean((2, 3))).square().sum().backward()
    optimizer.step()
    scheduler.step()
state = tiny.state_dict()
for name, parameter in list(tiny.model.named_parameters()):
    state["model_ema." + name.replace(".", "")] = parameter.detach() + 1
state["model_ema.decay"] = torch.tensor(0.9999)
state["model_ema.num_updates"] = torch.tensor(2, dtype=torch.int32)
score = torch.tensor(0.25)
assert isinstance(multi_step.state_dict()["milestones"], Counter)
both_ways("lightning", {
    "epoch": 3,
    "global_step": 2 ** 40,
    "pytorch-lightning_version": "1.4.2",
    "state_dict": state,
    "callbacks": {ModelCheckpoint: {
        "monitor": "val/loss", "best_model_score": score, "best_model_path": "last.ckpt", "current_score": score,
        "numpy_score": np.float64(0.25), "numpy_list": np.arange(3), "seen": {1, 2}, "dirpath": None}},
    "optimizer_states": [optimizer.state_dict()],
    "lr_schedulers": [scheduler.state_dict(), multi_step.state_dict()],
    "hyper_parameters": AttributeDict(lr=1e-3, betas=(0.9, 0.999), device=torch.device("cpu"), size=torch.Size([1, 2])),
    "learning_rate": 0.5,
    "finished": False,
})
expected("lightning", state)

# --- windows into storages, of every dtype ---
base = torch.arange(24, dtype=torch.float32).view(2, 3, 4)
kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
         torch.int8, torch.uint8, torch.bool]
windows = {
    "whole": base,
    "transposed": torch.nn.Parameter(base.transpose(0, 2)),
    "column": base[:, 1:, 2],
    "every_other": base.flatten()[1::2],
    "tail": base.flatten()[20:],
    "expanded": torch.tensor([1.0, 2.0]).view(2, 1).expand(2, 5),
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    **{f"kind.{str(kind)[6:]}": torch.linspace(-3, 5, 9).to(kind) for kind in kinds},
}
both_ways("windows", windows)
expected("windows", windows)

# --- zip archives of other programs: another folder name, compressed entries, a comment ---
def rewritten(source, target, compression=zipfile.ZIP_STORED, folder="archive", change=lambda name, data: data, comment=b""):
    with zipfile.ZipFile(HERE / source) as old, zipfile.ZipFile(HERE / target, "w", compression) as new:
        new.comment = comment
        for entry in old.namelist():
            name = entry.split("/", 1)[1]
            data = change(name, old.read(entry))
            if data is not None:
                new.writestr(zipfile.ZipInfo(f"{folder}/{name}", (2022, 4, 13, 0, 0, 0)), data, compression)


rewritten("windows.ckpt", "windows_deflated.ckpt", zipfile.ZIP_DEFLATED, "another name", comment=b"packed again")
rewritten("windows.ckpt", "big_endian.ckpt", change=lambda name, data: b"big" if name == "byteorder" else data)

# --- files that must be refused. A raw pickle in a torch zip, as an attacker would write it. ---
def zipped(name, data):
    with zipfile.ZipFile(HERE / f"{name}.ckpt", "w") as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl", (2022, 4, 13, 0, 0, 0)), data)
        archive.writestr(zipfile.ZipInfo("archive/data/0", (2022, 4, 13, 0, 0, 0)), struct.pack("<4f", 1, 2, 3, 4))


class Calls:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def weights():
    return {"state_dict": {}}


zipped("hostile_system", pickle.dumps(weights() | {"x": Calls(os.system, "echo hostile")}, 2))
zipped("hostile_eval", pickle.dumps(weights() | {"x": Calls(eval, "1")}, 4))
zipped("hostile_nested", pickle.dumps(weights() | {"callbacks": {"a": [{"b": (Calls(subprocess.getoutput, "id"),)}]}}, 4))
zipped("hostile_object", pickle.dumps(weights() | {"x": zipfile.ZipInfo("an object")}, 2))  # NEWOBJ
zipped("hostile_build", b"\x80\x02csubprocess\nPopen\n}X\x01\x00\x00\x00aK\x01sb.")  # BUILD on a class
zipped("hostile_inst", b"\x80\x02(X\x02\x00\x00\x00idiposix\nsystem\n.")
zipped("hostile_obj", b"\x80\x02(cposix\nsystem\nX\x02\x00\x00\x00ido.")
zipped("hostile_arguments", b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04K\x05K\x06tRs.")


def tensor_at(offset, shape, stride):
    """A state dict of one tensor in the storage of four floats that `zipped` adds."""
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if value is storage else None

    storage = object()
    rebuilt = Calls(torch._utils._rebuild_tensor_v2, storage, offset, shape, stride, False, OrderedDict())
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"w": rebuilt})
    return buffer.getvalue()


zipped("window_inside", tensor_at(1, (3,), (1,)))
zipped("window_outside", tensor_at(2, (3,), (1,)))
zipped("window_negative", tensor_at(-1, (3,), (1,)))
zipped("window_overflow", tensor_at(2**62, (2**62, 2), (2**62, 2**62)))
zipped("window_expanded", tensor_at(0, (2**40,), (0,)))

legacy = (HERE / "windows_legacy.ckpt").read_bytes()
(HERE / "big_endian_legacy.ckpt").write_bytes(legacy.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
assert (HERE / "big_endian_legacy.ckpt").read_bytes() != legacy
torch.save(torch.zeros(3), HERE / "one_tensor.ckpt")
torch.save({"g_ema": {"weights": [torch.zeros(3)]}, "epoch": 1}, HERE / "no_state_dict.ckpt")
torch.save({"model": {"w": torch.ones(2)}, "ema": {"w": torch.zeros(2)}}, HERE / "model_key.ckpt")
(HERE / "plain_pickle.ckpt").write_bytes(pickle.dumps({"w": [1.0, 2.0]}, 2))
rewritten("one_tensor.ckpt", "torchscript.ckpt", change=lambda name, data: data)
with zipfile.ZipFile(HERE / "torchscript.ckpt", "a") as archive:
    archive.writestr(zipfile.ZipInfo("archive/constants.pkl", (2022, 4, 13, 0, 0, 0)), b"")
