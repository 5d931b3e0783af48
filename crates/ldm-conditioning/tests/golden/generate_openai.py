"""Golden values of CompVis' FrozenCLIPTextEmbedder and FrozenClipImageEmbedder on a tiny CLIP of openai/CLIP.

    LDM_REF=FOLDER python generate_openai.py

FOLDER holds CompVis' and OpenAI's repositories; needs kornia, ftfy and regex. Weights are not stored: both sides compute
them by a formula (`golden_weights.fill`).
"""
import json
import os
import pathlib
import sys
import types

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
REF = pathlib.Path(os.environ["LDM_REF"])
sys.path[:0] = [str(HERE.parents[3] / "docs/tools"), str(REF / "CLIP")]
# openai/CLIP asks setuptools for the version of torch.
if "pkg_resources" not in sys.modules:
    try:
        import pkg_resources  # noqa: F401
    except ImportError:
        from packaging import version as packaging_version
        fake = types.ModuleType("pkg_resources")
        fake.packaging = types.SimpleNamespace(version=packaging_version)
        sys.modules["pkg_resources"] = fake
import clip  # noqa: E402
import kornia  # noqa: E402
from clip.model import CLIP  # noqa: E402
from einops import repeat  # noqa: E402
from golden_weights import fill  # noqa: E402

SIZES = {"embed_dim": 12, "image_resolution": 224, "vision_layers": 2, "vision_width": 64, "vision_patch_size": 56,
         "context_length": 77, "vocab_size": 49408, "transformer_width": 16, "transformer_heads": 2, "transformer_layers": 2}
TEXTS = ["a photo of a cat", "", "Two dogs, (three) cafés!"]


def embedder(name):
    """A class out of CompVis' file, without what the rest of the file imports."""
    text = (REF / "latent-diffusion/ldm/modules/encoders/modules.py").read_text()
    start = text.index(f"class {name}(")
    end = text.find("\nclass ", start)
    space = {"torch": torch, "nn": torch.nn, "clip": clip, "kornia": kornia, "repeat": repeat}
    exec(compile(text[start:end if end > 0 else None], "modules.py", "exec"), space)
    return space[name]


def main():
    model = CLIP(**SIZES).float().eval().requires_grad_(False)
    parameters = {f"model.{name}": value for name, value in model.named_parameters() if name != "logit_scale"}
    fill(parameters.items(), 5)
    clip.load = lambda *_, **__: (model, None)
    tensors = {"tokens": clip.tokenize(TEXTS).long()}
    text = embedder("FrozenCLIPTextEmbedder")
    tensors["text"] = text(device="cpu").encode(TEXTS)
    tensors["text_repeated"] = text(device="cpu", n_repeat=3, normalize=False).encode(TEXTS)
    g = torch.Generator().manual_seed(1)
    # Smaller than CLIP's images, and larger on one side.
    for name, size in [("small", (20, 33)), ("tall", (260, 4))]:
        images = torch.rand(2, 3, *size, generator=g) * 2 - 1
        tensors |= {f"images.{name}": images,
                    f"image.{name}": embedder("FrozenClipImageEmbedder")("ViT", device="cpu")(images)}
    sizes = json.dumps(SIZES)
    shapes = json.dumps({name: list(value.shape) for name, value in parameters.items()})
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / "openai_clip.safetensors",
              metadata={"sizes": sizes, "shapes": shapes, "texts": json.dumps(TEXTS), "torch": torch.__version__,
                        "kornia": kornia.__version__})


main()
