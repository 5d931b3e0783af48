"""Golden values of CLIP from transformers' CLIPModel, tiny and random.

    python generate_clip.py

Weights are not stored: both sides compute them by the formula of `ldm_core::testing::filled`.
"""
import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
from golden_weights import fill  # noqa: E402

TEXT = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 60,
        "max_position_embeddings": 9, "bos_token_id": 58, "eos_token_id": 59, "pad_token_id": 59}
VISION = {"hidden_size": 24, "intermediate_size": 50, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 20,
          "patch_size": 6, "hidden_act": "gelu"}


def main():
    config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=11)
    model = CLIPModel(config).eval().requires_grad_(False)
    parameters = dict(model.named_parameters())
    fill(parameters.items(), 6)
    g = torch.Generator().manual_seed(2)
    tokens = torch.randint(58, (3, 9), generator=g)
    # Ends in different places, and what stands behind an end.
    tokens[0, 8] = tokens[1, 5:] = tokens[2, 3] = 59
    images = torch.randint(256, (3, 3, 20, 20), generator=g, dtype=torch.uint8)
    processor = CLIPImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 20, "width": 20})
    pixels = processor(images=list(images), return_tensors="pt")["pixel_values"]
    out = model(input_ids=tokens, pixel_values=pixels)
    print(out.text_embeds @ out.image_embeds.T)
    tensors = {"tokens": tokens, "images": images, "text": out.text_embeds, "image": out.image_embeds}
    shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
    about = {"model_type": "clip", "projection_dim": 11, "text_config": TEXT, "vision_config": VISION}
    save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / "clip.safetensors", metadata={
        "config": json.dumps(about), "shapes": json.dumps(shapes), "transformers": transformers.__version__, "torch": torch.__version__})


main()
