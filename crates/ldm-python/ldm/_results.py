"""Images of a pipeline, and its progress."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image


@dataclass
class PipelineOutput:
    """The images of a call, in the order of the prompts; the lists have one entry for each image."""

    #: The images. Their ``info["parameters"]`` is the text that web UIs read.
    images: list[Image.Image]
    #: The seed of each image: with it and the same arguments the image has the same pixels.
    seeds: list[int]
    #: The settings of each image, as the text that web UIs read.
    parameters: list[str]
    #: True for images that the safety checker of the model replaced.
    nsfw_content_detected: list[bool]
    #: Warnings, such as that of a prompt which is cut off.
    notes: list[str] = field(default_factory=list)
    _files: list[bytes] = field(default_factory=list, repr=False)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Writes the images into a folder as ``00000.png``, …, with their settings; returns the paths.

        Raises:
            FileExistsError: one of the files exists; no file is replaced.
        """
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        paths = [root / f"{index:05}.png" for index in range(len(self._files))]
        for path, data in zip(paths, self._files):
            with open(path, "xb") as file:
                file.write(data)
        return paths


@dataclass(frozen=True)
class Progress:
    """The progress of a call."""

    #: The place of the prompt among the prompts of the call, from 0.
    prompt: int
    #: Sampling steps done, of all images of the prompt.
    step: int
    #: Sampling steps of all images of the prompt; 0 while they are unknown.
    steps: int
    #: Seconds that the rest of the prompt's images will take; None while they are unknown.
    seconds_left: float | None
    _read_preview: Callable[[], bytes | None] = field(repr=False)

    def preview(self) -> Image.Image | None:
        """Returns the denoised image of the newest step, in small; None before the first."""
        data = self._read_preview()
        return None if data is None else Image.open(io.BytesIO(data))
