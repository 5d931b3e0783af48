"""Makes `values.safetensors`: the timestep embedding of CompVis' code, and weights by the formula of golden_weights.py.

LDM_REF=<folder of latent-diffusion, taming-transformers, CLIP> python generate.py
"""
import os, subprocess, sys, warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
warnings.filterwarnings("ignore")

import torch
from safetensors.torch import save_file

import compvis_reference  # noqa: F401  makes CompVis' code importable
import golden_weights
from ldm.modules.diffusionmodules.util import timestep_embedding

torch.set_num_threads(1)
torch.manual_seed(0)
COMMIT = subprocess.run(
    ["git", "-C", os.environ["LDM_REF"] + "/latent-diffusion", "rev-parse", "HEAD"], capture_output=True, text=True
).stdout.strip()


def expected(name, tensors):
    copies = {key: value.detach().clone().contiguous() for key, value in tensors.items()}
    save_file(copies, HERE / f"{name}.safetensors", metadata={"latent-diffusion": COMMIT, "torch": torch.__version__})


times = torch.tensor([0, 1, 37, 500, 999])
layers = torch.nn.ModuleDict({
    "conv": torch.nn.Conv2d(32, 8, 3), "norm": torch.nn.GroupNorm(32, 32), "out": torch.nn.Linear(7, 5)})
golden_weights.fill(layers.named_parameters(), 5)
expected("values", {
    "t": times,
    "embedding.64": timestep_embedding(times, 64),
    "embedding.33": timestep_embedding(times, 33),
    "fractional": timestep_embedding(torch.tensor([0.5, 12.25]), 64),
    **{f"filled.{name}": parameter for name, parameter in layers.named_parameters()},
})
