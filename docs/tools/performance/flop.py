#!/usr/bin/env python3
"""Counts the floating-point operations of diffusers' networks with torch's counter, on the meta device.

The golden numbers of crates/ldm-cli/tests/bench.rs, which counts those of `ldm`:

    python3 docs/tools/performance/flop.py > crates/ldm-cli/tests/golden/flop.json

Made with torch 2.11.0 and diffusers 0.42.1; the numbers are exact, the tolerance is 0.
"""
import json

import diffusers
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import peers


def count(name, batch, **size):
    """Counts attention as matrix products: the counter has no formula for the CPU's fused kernel."""
    with torch.device("meta"):
        model, run = peers.MODELS[name](batch, **size)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return {"flop": counter.get_total_flops(), "parameters": peers.parameters(name, model)}


if __name__ == "__main__":
    print(json.dumps({
        "torch": torch.__version__, "diffusers": diffusers.__version__,
        **{name: count(name, 1) for name in peers.MODELS},
        "decoder-32": count("decoder", 1, side=32),
    }, indent=2))
