"""Golden values of LPIPS from taming-transformers' own code, which the `lpips` package agrees with.

    LDM_REF=FOLDER python generate_lpips.py    # see docs/tools/compvis_reference.py

The 14.7 million weights of the trunk are not stored: both sides compute them by the formula of
`ldm_core::testing::filled`, here twice as large for the convolutions' kernels, so that the signal reaches relu5_3; the
heads are the absolute values. Computed in float64, stored as float32.
"""
import contextlib, importlib, io, os, subprocess, sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
import compvis_reference as ref
from taming.modules.losses import lpips



def without_downloads():
    """taming's LPIPS with weights as torch draws them."""
    vgg = lpips.models.vgg16
    lpips.models.vgg16 = lambda pretrained: vgg(weights=None)
    lpips.LPIPS.load_from_pretrained = lambda self: None


def formula(name, tensor, k, seed):
    """The formula of `ldm_core::testing::fill_weights` for variable `k`."""
    count, size = tensor.numel(), tensor.shape
    i = np.arange(count, dtype=np.float64)
    x = np.sin((i + 1) * 12.9898 + ((k + 1) * 78.233 + seed * 37.719)) * 43758.5453
    v = 2 * (x - np.floor(x)) - 1
    if len(size) >= 2:
        v = v * (1.2 / np.sqrt(count / size[0]))
    else:
        v = (1.0 if name.endswith("weight") else 0.0) + 0.1 * v
    return torch.from_numpy(v.astype(np.float32)).reshape(size)


def fill(module, seed):
    names = {k: v for k, v in module.state_dict().items() if not k.startswith("scaling_layer.")}
    with torch.no_grad():
        for k, (name, tensor) in enumerate(sorted(names.items())):
            value = formula(name, tensor, k, seed)
            if name.startswith("lin"):
                value = value.abs()
            elif value.dim() == 4:
                value = 2 * value
            tensor.copy_(value)
    return module


def build(seed):
    without_downloads()
    with contextlib.redirect_stdout(io.StringIO()):
        return fill(lpips.LPIPS().eval(), seed).double()


def check_package(model, inputs, distance):
    """The `lpips` package gives the same numbers with the same weights."""
    package = importlib.import_module("lpips").LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False).eval().double()
    own = package.state_dict()
    weights = model.state_dict()
    # `lins.0` is `lin0` once more.
    weights |= {name: weights[f"lin{name[5:]}"] for name in own if name.startswith("lins.")}
    package.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(package(*inputs), distance.detach(), rtol=1e-9, atol=0)


def main():
    torch.set_num_threads(1)
    model = build(seed=3)
    g = torch.Generator().manual_seed(1)
    a = torch.randn(3, 3, 24, 40, generator=g).tanh()
    strength = torch.tensor([0.02, 0.3, 1.0]).view(3, 1, 1, 1)
    b = (a + strength * torch.randn(a.shape, generator=g)).clamp(-1.2, 1.2)
    inputs = [x.double().requires_grad_() for x in (a, b)]
    distance = model(*inputs)
    distance.sum().backward()
    check_package(model, inputs, distance)
    commit = subprocess.check_output(["git", "-C", f"{ref.REF}/taming-transformers", "rev-parse", "HEAD"], text=True).strip()
    tensors = {"a": a, "b": b, "distance": distance.flatten(), "gradient.a": inputs[0].grad, "gradient.b": inputs[1].grad}
    tensors = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    print(tensors["distance"])
    metadata = {"reference": f"taming-transformers {commit}", "torch": torch.__version__, "config": "seed 3", "tolerance": "1e-5"}
    save_file(tensors, HERE / "lpips.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
