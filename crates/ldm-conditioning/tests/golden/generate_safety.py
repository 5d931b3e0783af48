"""Golden values of the safety checker by diffusers' StableDiffusionSafetyChecker, tiny, with random concepts.

    python generate_safety.py

Weights are not stored: both sides compute them by a formula (`golden_weights.fill`). Thresholds are put in the middle of
the scores, so that some images are above them and some below.
"""
import json
import pathlib
import sys

import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
from golden_weights import fill  # noqa: E402

VISION = {"hidden_size": 24, "intermediate_size": 50, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 20,
          "patch_size": 6, "hidden_act": "quick_gelu"}



def main():
    model = StableDiffusionSafetyChecker(CLIPConfig(vision_config=VISION, projection_dim=11)).eval()
    names = {name: parameter for name, parameter in model.named_parameters() if not name.endswith("_weights")}
    fill(names.items(), 6)
    g = torch.Generator().manual_seed(2)
    images = torch.randint(256, (6, 3, 20, 20), generator=g, dtype=torch.uint8)
    images[0] //= 8
    images[1] = 255 - images[1] // 8
    processor = CLIPImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 20, "width": 20})
    pixels = processor(images=list(images), return_tensors="pt")["pixel_values"]
    embeds = model.visual_projection(model.vision_model(pixels)[1])
    similarity = cosine_distance(embeds, model.concept_embeds), cosine_distance(embeds, model.special_care_embeds)
    with torch.no_grad():
        # The highest two of six images are above most thresholds; one special concept applies to one image.
        model.concept_embeds_weights.copy_(similarity[0].amax(0) + 0.02)
        model.concept_embeds_weights[5] = similarity[0][:, 5].sort().values[4:].mean()
        top = similarity[0][:, 7]
        model.concept_embeds_weights[7] = top.max() + 0.005  # reached only with the allowance of a special concept
        model.special_care_embeds_weights.copy_(similarity[1].amax(0) + 0.1)
        model.special_care_embeds_weights[1] = similarity[1][top.argmax(), 1] - 0.004
    _, flags = model(pixels, [torch.ones(1) for _ in images])
    scores = similarity[0] - model.concept_embeds_weights
    print(flags, top.argmax(), [s.max().item() for s in scores])
    tensors = {"images": images, "flags": torch.tensor(flags), "concepts": similarity[0], "special": similarity[1],
               "concept_embeds_weights": model.concept_embeds_weights.data,
               "special_care_embeds_weights": model.special_care_embeds_weights.data}
    shapes = {name: list(parameter.shape) for name, parameter in names.items()}
    about = {"model_type": "clip", "projection_dim": 11, "vision_config": VISION}
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, HERE / "safety.safetensors", metadata={
        "config": json.dumps(about), "shapes": json.dumps(shapes), "transformers": transformers.__version__,
        "torch": torch.__version__})


main()
