"""Arguments of a pipeline as fields of the server's requests."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Tuple, Union

from PIL import Image

from ._errors import RequestError


class SupportsArray(Protocol):
    """An array of NumPy, or whatever else Pillow makes an image of."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


class SupportsSeed(Protocol):
    """A ``torch.Generator``."""

    def initial_seed(self) -> int: ...


#: An image: of Pillow, a path, the bytes of a file, or an array [H, W] or [H, W, C] of uint8.
ImageInput = Union[Image.Image, str, "os.PathLike[str]", bytes, SupportsArray]
#: A labeled box: the class by name or number, and (x, y, width, height) as fractions of the image.
LayoutBox = Tuple[Union[str, int], Tuple[float, float, float, float]]
#: A dtype by name (``f32``, ``bf16``, ``f16``, ``auto``, ``float32``, …), or one of torch.
Dtype = Union[str, object]

#: Arguments whose names are diffusers', by the fields of the server.
ARGUMENTS = {
    "class": "class_labels",
    "clip_skip": "clip_skip",
    "mask": "mask_image",
    "n": "num_images_per_prompt",
    "steps": "num_inference_steps",
}

_DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "half": "f16", "float": "f32"}


def dtype_name(dtype: Dtype) -> str:
    """Returns the name of a dtype on the command line."""
    name = str(dtype)
    name = name[len("torch.") :] if name.startswith("torch.") else name
    return _DTYPES.get(name, name)


def encode_image(image: ImageInput) -> str:
    """Returns base64 of an image file."""
    if isinstance(image, (str, os.PathLike)):
        with open(image, "rb") as file:
            data = file.read()
    elif isinstance(image, bytes):
        data = image
    else:
        found = image if isinstance(image, Image.Image) else Image.fromarray(image)
        buffer = io.BytesIO()
        found.save(buffer, "png", compress_level=1)
        data = buffer.getvalue()
    return base64.b64encode(data).decode()


def seed_of(seed: int | None, generator: SupportsSeed | None) -> int | None:
    """Returns the first seed: that of a generator is the one it was made with."""
    if seed is not None and generator is not None:
        raise RequestError("seed: expected either seed or generator, got both", "seed")
    return seed if generator is None else generator.initial_seed()


def conditions(
    prompt: str | Sequence[str] | None,
    negative_prompt: str | Sequence[str] | None,
    class_labels: int | str | Sequence[int | str] | None,
) -> list[dict[str, Any]]:
    """Returns the condition of each job: one for every prompt, or every class."""
    if class_labels is not None:
        if prompt is not None:
            raise RequestError("class_labels: expected either a prompt or classes, got both", "class_labels")
        classes = [class_labels] if isinstance(class_labels, (int, str)) else list(class_labels)
        return [{"class": str(each)} for each in classes]
    prompts = [prompt or ""] if prompt is None or isinstance(prompt, str) else list(prompt)
    if negative_prompt is None or isinstance(negative_prompt, str):
        negatives = [negative_prompt or ""] * len(prompts)
    else:
        negatives = list(negative_prompt)
    if len(negatives) != len(prompts):
        raise RequestError(
            f"negative_prompt: expected one for each of {len(prompts)} prompts, got {len(negatives)}", "negative_prompt"
        )
    return [{"prompt": each, "negative_prompt": negative} for each, negative in zip(prompts, negatives)]


def layout_fields(layout: Sequence[LayoutBox]) -> list[dict[str, Any]]:
    """Returns labeled boxes as the server reads them."""
    return [{"label": str(label), "box": list(box)} for label, box in layout]


def lora_fields(loras: Mapping[str, float]) -> list[dict[str, Any]]:
    """Returns LoRAs with their weights as the server reads them."""
    return [{"name": name, "weight": weight} for name, weight in loras.items()]


def renamed(error: RequestError) -> RequestError:
    """Returns an error with the names of the arguments in place of the server's fields."""
    field, message = error.field, str(error)
    argument = ARGUMENTS.get(field) if field else None
    if field is None or argument is None:
        return error
    return RequestError(message.replace(f"{field}:", f"{argument}:", 1), argument)
