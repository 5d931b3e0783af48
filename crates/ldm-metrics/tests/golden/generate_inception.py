"""Golden values of FID's Inception from torch-fidelity's network, whose code is pytorch-fid's.

    python generate_inception.py

The 24 million weights are not stored: both sides compute them by the formula of `ldm_core::testing::filled`, here with
kernels twice as large, so that the signal reaches the end, and with variances that are positive. Needs torch-fidelity 0.4.
"""
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
from golden_weights import fill  # noqa: E402


def network():
    with mock.patch("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", return_value={}), \
         mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict", lambda *a, **k: None):
        return FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"])


def main():
    net = network()
    tensors = [(name, t) for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked") and name != "fc.bias"]
    lines = [f"{name} {','.join(map(str, tensor.shape))}\n" for name, tensor in sorted(tensors, key=lambda pair: pair[0])]
    (HERE / "inception_manifest.txt").write_text("".join(lines))
    fill(tensors, 4)
    for name, tensor in tensors:
        if tensor.ndim == 4:
            tensor.mul_(2)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    g = torch.Generator().manual_seed(9)
    out = {}
    # What ADM's evaluator compares for sFID: the graph's `mixed_6/conv`, which torch-fidelity's conversion calls so; its first
    # seven channels, the channel running fastest as TensorFlow has it.
    spatial = []
    net.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, y: spatial.append(y[:, :7].permute(0, 2, 3, 1).reshape(len(y), -1).clone()))
    # Smaller than what the network sees, larger, and no square.
    for name, size in (("small", (32, 40)), ("large", (310, 301))):
        coarse = torch.rand((2, 3, 8, 9), generator=g)
        x = torch.nn.functional.interpolate(coarse, size, mode="bicubic").mul(255).round().clamp(0, 255).to(torch.uint8)
        pooled, logits = net(x)
        if name == "small":
            out |= {"small": x}
        else:
            out |= {"coarse": coarse}
        out |= {f"{name}_pooled": pooled, f"{name}_logits": logits, f"{name}_spatial": spatial[-1]}
        print(name, pooled.std().item(), logits.std().item(), pooled.std(0).mean().item())
    import torch_fidelity
    save_file(out, HERE / "inception.safetensors", metadata={"reference": f"torch-fidelity {torch_fidelity.__version__}", "torch": torch.__version__})


main()
