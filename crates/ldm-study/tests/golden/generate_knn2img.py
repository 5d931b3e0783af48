"""The conditioning of CompVis' scripts/knn2img.py, from texts and images to the U-Net's context, with a tiny random CLIP.

    LDM_REF=FOLDER python generate_knn2img.py

FOLDER holds CompVis' latent-diffusion and OpenAI's CLIP; needs kornia, ftfy and regex. Weights are not stored: both sides compute
them by a formula (`golden_weights.fill`), under the names of transformers' CLIPModel. The end token is the greatest, as in CLIP's vocabulary; texts are given as tokens.
"""
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
REF = pathlib.Path(os.environ["LDM_REF"])
sys.path[:0] = [str(HERE.parents[3] / "docs/tools"), str(REF / "CLIP")]
if "pkg_resources" not in sys.modules:  # openai/CLIP asks setuptools for the version of torch
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

SIZES = {"embed_dim": 12, "image_resolution": 224, "vision_layers": 1, "vision_width": 64, "vision_patch_size": 56,
         "context_length": 9, "vocab_size": 60, "transformer_width": 16, "transformer_heads": 2, "transformer_layers": 2}
K = 4


def embedder(name):
    """A class out of CompVis' file, without what the rest of the file imports."""
    text = (REF / "latent-diffusion/ldm/modules/encoders/modules.py").read_text()
    start = text.index(f"class {name}(")
    end = text.find("\nclass ", start)
    space = {"torch": torch, "nn": torch.nn, "clip": clip, "kornia": kornia, "repeat": repeat}
    exec(compile(text[start:end if end > 0 else None], "modules.py", "exec"), space)
    return space[name]


def searcher(embedding):
    """The Searcher of CompVis' script, as `ldm-retrieval/tests/golden/generate.py` makes it runnable."""
    path = HERE.parents[2] / "ldm-retrieval/tests/golden/generate.py"
    spec = importlib.util.spec_from_file_location("searcher_golden", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = (Searcher := module.searcher_class()).__new__(Searcher)
    names = np.arange(len(embedding))
    made.database, made.searcher = {"embedding": embedding, "img_id": names, "patch_coords": names}, None
    return made


def transformers_names(model):
    """Views of the parameters under the names of transformers' CLIPModel."""
    tensors = {"text_projection.weight": model["text_projection"].T, "visual_projection.weight": model["visual.proj"].T,
               "text_model.embeddings.token_embedding.weight": model["token_embedding.weight"],
               "text_model.embeddings.position_embedding.weight": model["positional_embedding"],
               "vision_model.embeddings.class_embedding": model["visual.class_embedding"],
               "vision_model.embeddings.patch_embedding.weight": model["visual.conv1.weight"],
               "vision_model.embeddings.position_embedding.weight": model["visual.positional_embedding"]}
    for part in ("weight", "bias"):
        for ours, theirs in [("text_model.final_layer_norm", "ln_final"), ("vision_model.pre_layrnorm", "visual.ln_pre"),
                             ("vision_model.post_layernorm", "visual.ln_post")]:
            tensors[f"{ours}.{part}"] = model[f"{theirs}.{part}"]
        for ours, theirs, layers in [("text_model", "transformer", SIZES["transformer_layers"]),
                                     ("vision_model", "visual.transformer", SIZES["vision_layers"])]:
            for i in range(layers):
                to, block = f"{ours}.encoder.layers.{i}", f"{theirs}.resblocks.{i}"
                for name, other in [("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"),
                                    ("mlp.fc2", "mlp.c_proj"), ("self_attn.out_proj", "attn.out_proj")]:
                    tensors[f"{to}.{name}.{part}"] = model[f"{block}.{other}.{part}"]
                for name, value in zip("qkv", model[f"{block}.attn.in_proj_{part}"].chunk(3)):
                    tensors[f"{to}.self_attn.{name}_proj.{part}"] = value
    return tensors


def main():
    g = torch.Generator().manual_seed(4)
    model = CLIP(**SIZES).float().eval().requires_grad_(False)
    weights = transformers_names(dict(model.named_parameters()))
    fill(weights.items(), 6)  # in place
    clip.load = lambda *_, **__: (model, None)
    tokens = torch.randint(58, (3, SIZES["context_length"]), generator=g)
    for row, end in enumerate([8, 4, 2]):
        tokens[row, 0], tokens[row, end], tokens[row, end + 1:] = 58, 59, 0
    clip.tokenize = lambda texts: tokens
    # Colors of 4 x 4 fields: images of CLIP's size, in few bytes. 0 to 255.
    fields = torch.randint(256, (10, 3, 4, 4), generator=g, dtype=torch.uint8)
    images = fields.repeat_interleave(56, 2).repeat_interleave(56, 3).float() / 127.5 - 1
    embedding = embedder("FrozenClipImageEmbedder")("ViT", device="cpu")(images)
    encoder = embedder("FrozenCLIPTextEmbedder")("ViT", device="cpu")
    # scripts/knn2img.py:355 to 363
    c = encoder.encode(["", "", ""])
    alone = c.clone()
    found = searcher(embedding.numpy())(c, K)
    c = torch.cat([c, torch.from_numpy(found["nn_embeddings"])], dim=1)
    text = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 60,
            "max_position_embeddings": 9, "bos_token_id": 58, "eos_token_id": 59, "pad_token_id": 59, "hidden_act": "quick_gelu"}
    vision = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 224,
              "patch_size": 56, "hidden_act": "quick_gelu"}
    config = {"model_type": "clip", "projection_dim": 12, "text_config": text, "vision_config": vision}
    shapes = {name: list(value.shape) for name, value in weights.items()}
    tensors = {"tokens": tokens, "fields": fields, "embedding": embedding, "nns": torch.from_numpy(found["nns"]), "c": c,
               "alone": alone}
    commit = subprocess.check_output(["git", "-C", str(REF / "latent-diffusion"), "rev-parse", "HEAD"], text=True).strip()
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / "knn2img.safetensors",
              metadata={"config": json.dumps(config), "shapes": json.dumps(shapes), "commit": commit, "torch": torch.__version__, "kornia": kornia.__version__})
    print(found["nns"], c.shape)


main()
