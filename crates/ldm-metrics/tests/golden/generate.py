"""Golden values of ldm-metrics, made by scikit-image and numpy.

    python generate.py
"""
import json
import pathlib

import numpy as np
import skimage
import torch
from safetensors.torch import save_file
from skimage.metrics import peak_signal_noise_ratio

HERE = pathlib.Path(__file__).parent


def psnr():
    g = torch.Generator().manual_seed(1)
    a = torch.rand((5, 3, 8, 12), generator=g) * 2 - 1
    # From nearly equal to unrelated; some values leave [-1, 1].
    strength = torch.tensor([0.002, 0.02, 0.2, 0.5, 1.0]).view(5, 1, 1, 1)
    b = a + strength * torch.randn(a.shape, generator=g)
    to_uint8 = lambda x: ((x + 1) * 127.5).clamp(0, 255).round().to(torch.uint8).numpy()
    values = [peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(to_uint8(a), to_uint8(b))]
    tensors = {"a": a, "b": b, "psnr": torch.tensor(values, dtype=torch.float64)}
    tensors["mean"] = torch.tensor(np.mean(values))
    tensors["std"] = torch.tensor(np.std(values, ddof=1))
    metadata = {"reference": f"scikit-image {skimage.__version__}", "torch": torch.__version__, "config": json.dumps({"peak": 255})}
    save_file(tensors, HERE / "psnr.safetensors", metadata=metadata)


if __name__ == "__main__":
    psnr()
