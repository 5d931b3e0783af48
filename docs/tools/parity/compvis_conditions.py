"""Conditioning: as CompVis' scripts make it, and the same inputs for `ldm`."""
from dataclasses import dataclass, field

import torch

BATCH = 2
TEXTS = ["A painting of a virus monster, playing guitar!", "blue café"]
CLASSES = [7, 421]


@dataclass
class Condition:
    """A condition: its name in the table; CompVis' tensors; then a command with its arguments, or with texts and
    the file of their tokenizer, or tensors for the example `parity`."""

    name: str
    cond: torch.Tensor = None
    uncond: torch.Tensor = None
    command: str = None
    arguments: list = field(default_factory=list)
    texts: list = field(default_factory=list)
    tokenizer: str = None
    given: dict = field(default_factory=dict)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(seed, high, *shape):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def nothing(_model, _size):
    return Condition("nothing", command="sample", arguments=["-n", str(BATCH)])


def classes(model, _size):
    cond = model.get_learned_conditioning({"class_label": torch.tensor(CLASSES)})
    arguments = ["-n", str(BATCH), "--class", ",".join(map(str, CLASSES))]
    return Condition("class", cond, command="sample", arguments=arguments)


def guided_classes(model, size):
    """Guided away from class 1000, which no image has."""
    condition = classes(model, size)
    condition.uncond = model.get_learned_conditioning({"class_label": torch.tensor([1000] * BATCH)})
    return condition


def text(model, _size):
    """scripts/txt2img.py."""
    bert = hasattr(model.cond_stage_model, "tknz_fn")
    tokenizer = "bert-base-uncased-vocab.txt" if bert else "bpe_simple_vocab_16e6.txt.gz"
    cond, uncond = model.get_learned_conditioning(TEXTS), model.get_learned_conditioning([""] * BATCH)
    return Condition(f"text, {'BERT' if bert else 'CLIP'}", cond, uncond, "txt2img", texts=TEXTS, tokenizer=tokenizer)


def layout(model, _size):
    tokens = integers(2, 8192, BATCH, 92)
    return Condition("layout tokens", model.get_learned_conditioning(tokens), given={"tokens": tokens})


def neighbors(model, _size):
    """scripts/knn2img.py: a text and four neighbors, guided away from zeros."""
    cond = model.get_learned_conditioning(draw(3, BATCH, 5, 768))
    return Condition("embeddings", cond, torch.zeros_like(cond), given={"embedding": cond})


def low_resolution(model, size):
    image = draw(4, BATCH, 3, *size).tanh()
    return Condition("low-resolution image", model.get_learned_conditioning(image), given={"image": image})


def semantic_map(model, size):
    """One-hot, four times as large as the latent. Regions, because single pixels would be averaged away."""
    labels = integers(5, 182, BATCH, size[0] // 2, size[1] // 2)
    labels = labels.repeat_interleave(8, -2).repeat_interleave(8, -1).roll((3, 3), (-2, -1))
    one_hot = torch.nn.functional.one_hot(labels, 182)
    mask = one_hot.permute(0, 3, 1, 2).float()
    return Condition("semantic map", model.get_learned_conditioning(mask), given={"mask": mask})


def image_and_mask(model, size):
    height, width = (side * 2**model.num_downs for side in size)
    mask = torch.zeros(BATCH, 1, height, width)
    mask[0, :, height // 5 : height // 2, width // 3 :], mask[1, :, ::3, width // 2 :] = 1, 1
    return draw(6, BATCH, 3, height, width).tanh(), mask


def masked_image(model, size):
    """scripts/inpaint.py: everything in [0, 1] first, then all of it to [-1, 1]."""
    image, mask = image_and_mask(model, size)
    cond = model.cond_stage_model.encode((1 - mask) * ((image + 1) / 2) * 2 - 1)
    small = torch.nn.functional.interpolate(mask * 2 - 1, size=cond.shape[-2:])
    return Condition("image and mask", torch.cat((cond, small), dim=1), given={"image": image, "mask": mask})


def image_and_tokens(model, size):
    """runwayml's scripts/inpaint_st.py; the mode instead of a sample of the posterior."""
    image, mask = image_and_mask(model, size)
    posterior = model.encode_first_stage(image * (mask < 0.5))
    posterior.sample = posterior.mode
    small = torch.nn.functional.interpolate(mask, size=size)
    concat = torch.cat((small, model.get_first_stage_encoding(posterior)), dim=1)
    apply = model.apply_model

    def both(x, t, context):  # CompVis' guidance can only stack tensors
        return apply(x, t, {"c_concat": [concat.repeat(len(x) // BATCH, 1, 1, 1)], "c_crossattn": [context]})

    model.apply_model = both
    embedder = model.cond_stage_model
    padded = {"truncation": True, "max_length": 77, "padding": "max_length", "return_tensors": "pt"}
    ids = [embedder.tokenizer(texts, **padded)["input_ids"] for texts in (TEXTS, [""] * BATCH)]
    cond, uncond = model.get_learned_conditioning(TEXTS), model.get_learned_conditioning([""] * BATCH)
    given = {"image": image, "mask": mask, "tokens": ids[0], "negative_tokens": ids[1]}
    return Condition("image, mask and text, CLIP", cond, uncond, given=given)
