"""Golden values of EfficientNet-lite0's features from the Python package efficientnet-lite-pytorch 0.1.0.

    python generate_efficientnet.py

The 3.4 million weights are not stored: both sides compute them by the formula of `ldm_core::testing::filled`, here with
kernels half as large again, so that the signal reaches the end (larger ones amplify rounding), and with variances that
are positive.
"""
import sys
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
from golden_weights import fill  # noqa: E402


def main():
    net = EfficientNet.from_name("efficientnet-lite0").eval()
    tensors = [(name, t) for name, t in net.state_dict().items()
               if not name.endswith("num_batches_tracked") and not name.startswith("_fc")]
    tensors.sort(key=lambda pair: pair[0])
    lines = [f"{name} {','.join(map(str, tensor.shape))}\n" for name, tensor in tensors]
    (HERE / "efficientnet_manifest.txt").write_text("".join(lines))
    fill(tensors, 4)
    for name, tensor in tensors:
        if tensor.ndim == 4:
            tensor.mul_(1.5)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    generator = torch.Generator().manual_seed(9)
    out = {}
    # Smaller than what the network sees, larger, and no square.
    for name, size in (("small", (32, 40)), ("large", (310, 301))):
        coarse = torch.rand((2, 3, 8, 9), generator=generator)
        x = torch.nn.functional.interpolate(coarse, size, mode="bicubic").mul(255).round().clamp(0, 255)
        resized = torch.nn.functional.interpolate(x, (224, 224), mode="bilinear", antialias=True)
        with torch.no_grad():
            features = net.extract_features((resized - 127) / 128).mean((2, 3))
        print(name, features.std().item(), features.std(0).mean().item(), (features == 0).float().mean().item())
        # `coarse` alone where the image would be large.
        out |= {name: x.to(torch.uint8) if name == "small" else coarse, f"{name}_features": features}
    save_file(out, HERE / "efficientnet.safetensors",
              metadata={"reference": "efficientnet-lite-pytorch 0.1.0", "torch": torch.__version__})


main()
