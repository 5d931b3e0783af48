"""Golden values of ldm-conditioning, made by CompVis' own code.

    LDM_REF=<folder with latent-diffusion, taming-transformers, CLIP> LDM_PEERS=<folder with compvis_reference.py> python generate.py
"""
import json
import os
import pathlib
import sys

import torch
from safetensors.torch import save_file

sys.path.insert(0, os.environ["LDM_PEERS"])
import compvis_reference  # noqa: E402  makes `ldm` importable

from ldm.modules.encoders.modules import ClassEmbedder  # noqa: E402

torch.set_num_threads(1)
HERE = pathlib.Path(__file__).parent
COMMIT = "a506df5756472e2ebaf9078affdde2c4f1502cd4"  # CompVis/latent-diffusion


def class_embedder():
    config = {"embed_dim": 8, "n_classes": 6, "key": "class_label"}
    model = compvis_reference.randomize(ClassEmbedder(**config), seed=1)
    label = torch.tensor([0, 5, 3, 3])
    tensors = {f"weights.{name}": value for name, value in model.state_dict().items()}
    tensors |= {"class": label, "context": model({"class_label": label})}
    tensors = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    metadata = {"reference": COMMIT, "torch": torch.__version__, "config": json.dumps(config)}
    save_file(tensors, HERE / "class.safetensors", metadata=metadata)


if __name__ == "__main__":
    class_embedder()
