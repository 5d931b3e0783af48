"""Weights by formula: what `ldm_core::testing::fill_weights` computes in Rust, so that golden files need not hold them."""
import numpy as np
import torch


def fill(named_parameters, seed):
    """Fills parameters in the order of their sorted names; nothing stays zero."""
    with torch.no_grad():
        for k, (name, parameter) in enumerate(sorted(named_parameters)):
            i = np.arange(parameter.numel(), dtype=np.float64)
            x = np.sin((i + 1) * 12.9898 + ((k + 1) * 78.233 + seed * 37.719)) * 43758.5453
            v = 2 * (x - np.floor(x)) - 1
            if parameter.ndim >= 2:
                v = v * 1.2 / np.sqrt(parameter.numel() / parameter.shape[0])
            elif name.endswith("weight"):
                v = 1 + 0.1 * v
            else:
                v = 0.1 * v
            parameter.copy_(torch.from_numpy(v.astype(np.float32)).view(parameter.shape))
