"""Makes the golden files of conditions.yaml: models of every kind of conditioning, five guided DDIM steps each.

    LDM_REF=FOLDER python generate_conditions.py [NAME…]    # see docs/tools/compvis_reference.py

Uses the model and vocabulary of generate.py.
"""
import copy
import json
import sys

import torch
import yaml
from safetensors.torch import save_file
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel

from generate import BATCH, HERE, commit, draw, fill, reference
from ldm.modules.encoders import modules

SEED, STEPS, SCALE = 6, 5, 3.0
TEXTS = ["A big red circle, left of the cat", "blue stars"]


class BertTokens(torch.nn.Module):
    """CompVis' BERTTokenizer, which downloads its vocabulary, with ours."""

    def __init__(self, vq_interface, max_length):
        super().__init__()
        words = (HERE / "vocab.txt").read_text().split()
        self.tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)}, do_lower_case=True)
        self.length = max_length

    def forward(self, text):
        return self.tokenizer(
            text, truncation=True, max_length=self.length, padding="max_length", return_tensors="pt")["input_ids"]


class ClipText(torch.nn.Module):
    """Stable Diffusion's FrozenCLIPEmbedder, which downloads its network, with a small one and given tokens."""

    def __init__(self, device, max_length, **sizes):
        super().__init__()
        self.transformer = CLIPTextModel(CLIPTextConfig(hidden_act="quick_gelu", **sizes)).eval()

    def encode(self, tokens):
        return self.transformer(input_ids=tokens).last_hidden_state


modules.BERTTokenizer, modules.FrozenCLIPEmbedder = BertTokens, ClipText


def build(overrides):
    config = yaml.safe_load((HERE / "class.yaml").read_text())
    config["model"]["params"]["cond_stage_config"]["params"].pop("null_class")
    for override in overrides:
        keys, value = override.split("=", 1)
        *path, last = keys.split(".")
        at = config
        for key in path:
            at = at[key]
        at[last] = yaml.safe_load(value)
    model = reference.instantiate_from_config(copy.deepcopy(config["model"])).eval()
    fill(model.named_parameters(), SEED)
    return model


def integers(seed, high, *shape):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def image_and_mask():
    mask = torch.zeros(BATCH, 1, 16, 16)
    mask[0, :, 3:9, 5:14], mask[1, :, ::3, 7:] = 1, 1
    return draw(41, BATCH, 3, 16, 16).tanh(), mask


# The prompt, its condition, and the unconditional one.
def text(model):
    return {}, model.get_learned_conditioning(TEXTS), model.get_learned_conditioning([""] * BATCH)


def layout(model):
    tokens = integers(42, 32, BATCH, 11)
    return {"tokens": tokens}, model.get_learned_conditioning(tokens), None


def embedding(model):
    c = model.get_learned_conditioning(draw(43, BATCH, 3, 24))
    return {"embedding": c}, c, torch.zeros_like(c)  # scripts/knn2img.py:350


def semantic(model):
    one_hot = torch.nn.functional.one_hot(integers(44, 5, BATCH, 16, 16), 5).permute(0, 3, 1, 2).float()
    return {"mask": one_hot}, model.get_learned_conditioning(one_hot), None


def super_resolution(model):
    image = draw(45, BATCH, 3, 8, 8).tanh()
    return {"image": image}, model.get_learned_conditioning(image), None


def inpainting(model):
    """scripts/inpaint.py: everything in [0, 1] first, then all of it to [-1, 1]."""
    image, mask = image_and_mask()
    masked = (1 - mask) * ((image + 1) / 2)
    c = model.cond_stage_model.encode(masked * 2 - 1)
    small = torch.nn.functional.interpolate(mask * 2 - 1, size=c.shape[-2:])
    return {"image": image, "mask": mask}, torch.cat((c, small), dim=1), None


def hybrid(model):
    """Stable Diffusion's scripts/inpaint_st.py; the mode in place of a sample of the posterior."""
    image, mask = image_and_mask()
    posterior = model.encode_first_stage(image * (mask < 0.5))
    posterior.sample = posterior.mode
    small = torch.nn.functional.interpolate(mask, size=(8, 8))
    concat = torch.cat((small, model.get_first_stage_encoding(posterior)), dim=1)
    tokens, negative = integers(46, 40, BATCH, 8), integers(47, 40, BATCH, 8)
    apply = model.apply_model

    def both(x, t, c):  # CompVis' guidance stacks tensors alone
        halves = concat.repeat(len(x) // BATCH, 1, 1, 1)
        return apply(x, t, {"c_concat": [halves], "c_crossattn": [c]})

    model.apply_model = both
    given = {"image": image, "mask": mask, "tokens": tokens, "negative_tokens": negative, "concat": concat}
    return given, model.get_learned_conditioning(tokens), model.get_learned_conditioning(negative)


def pair(model):
    """CompVis' HybridConditioner, which its LatentDiffusion cannot call: a map and a class."""
    one_hot = torch.nn.functional.one_hot(integers(49, 5, BATCH, 16, 16), 5).permute(0, 3, 1, 2).float()
    classes, others = torch.tensor([3, 8]), torch.tensor([0, 10])
    c = model.cond_stage_model(one_hot, {"class": classes})
    uc = model.cond_stage_model(one_hot, {"class": others})
    concat, apply = c["c_concat"][0], model.apply_model

    def both(x, t, c):  # CompVis' guidance stacks tensors alone
        halves = concat.repeat(len(x) // BATCH, 1, 1, 1)
        return apply(x, t, {"c_concat": [halves], "c_crossattn": [c]})

    model.apply_model = both
    given = {"mask": one_hot, "class": classes, "negative_class": others, "concat": concat}
    return given, c["c_crossattn"][0], uc["c_crossattn"][0]


def labels(model):
    classes, others = torch.tensor([3, 8]), torch.tensor([0, 10])
    return {"class": classes, "negative_class": others}, classes, others


def run(model, make):
    given, c, uc = make(model)
    channels = model.channels
    x_T = draw(48, BATCH, channels, 8, 8)
    if c.is_floating_point():
        t = torch.full((BATCH,), 500)
        one, other = model.apply_model(x_T, t, c), model.apply_model(x_T, t, c.flip(0))
        assert ((one - other).std(dim=(1, 2, 3)) > 0.02 * one.std()).all()  # the condition matters
    sampler, _ = reference.ddim(model)
    guided = {} if uc is None else {"unconditional_guidance_scale": SCALE, "unconditional_conditioning": uc}
    latents, _ = sampler.sample(
        STEPS, BATCH, (channels, 8, 8), conditioning=c, eta=0.0, x_T=x_T, verbose=False, **guided)
    return {
        **given, "condition": c, "x_T": x_T, "latents": latents, "decoded": model.decode_first_stage(latents)}


if __name__ == "__main__":
    with torch.no_grad():
        for name, overrides in yaml.safe_load((HERE / "conditions.yaml").read_text()).items():
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            tensors = {key: tensor.contiguous().clone() for key, tensor in run(build(overrides), globals()[name]).items()}
            assert all(tensor.isfinite().all() for tensor in tensors.values()), name
            assert tensors["latents"].std() > 0.1 and tensors["decoded"].std() > 0.01, name
            save_file(tensors, HERE / f"{name}.safetensors", {
                "reference": f"CompVis/latent-diffusion {commit()}",
                "torch": torch.__version__,
                "config": json.dumps({"file": "class.yaml", "overrides": overrides, "seed": SEED, "steps": STEPS,
                                      "guidance_scale": SCALE, "texts": TEXTS if name == "text" else None}),
            })
