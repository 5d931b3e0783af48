"""Makes cond_schedule.safetensors: the loss of CompVis' LatentDiffusion with a shortened schedule of the condition.

    LDM_REF=FOLDER python generate_cond_schedule.py    # see docs/tools/compvis_reference.py
"""
import copy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT.parent / "docs/tools"), str(ROOT / "ldm-pipelines/tests/golden")]

import torch
import yaml
from safetensors.torch import save_file

import compvis_reference as reference
from golden_weights import fill

torch.set_num_threads(1)
config = yaml.safe_load((ROOT / "ldm-pipelines/tests/golden/class.yaml").read_text())["model"]
config["params"]["cond_stage_config"]["params"].pop("null_class")
config["params"].update(num_timesteps_cond=8, timesteps=20, linear_end=0.195)
model = reference.instantiate_from_config(copy.deepcopy(config)).eval()
fill(model.named_parameters(), 5)
assert model.shorten_cond_schedule

generator = torch.Generator().manual_seed(1)
z, draws = torch.randn(3, 4, 8, 8, generator=generator), []
t, classes = torch.tensor([2, 7, 15]), torch.tensor([3, 8, 0])


def randn_like(x):
    draws.append(torch.randn(x.shape, generator=generator))
    return draws[-1]


torch.randint, torch.randn_like = lambda *args, **options: t, randn_like
with torch.no_grad():
    _, parts = model(z, {"class": classes})
    assert len(draws) == 2 and draws[0].shape == (3, 1, 24), [each.shape for each in draws]
names = ["loss_simple", "loss_vlb", "loss"]
tensors = {"z": z, "t": t, "class": classes, "noise.condition": draws[0], "noise.latent": draws[1],
           "parts": torch.stack([parts[f"val/{name}"] for name in names]), "cond_ids": model.cond_ids}
save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / "cond_schedule.safetensors",
          metadata={"reference": f"CompVis/latent-diffusion {reference.commit('latent-diffusion')}",
                    "torch": torch.__version__})
