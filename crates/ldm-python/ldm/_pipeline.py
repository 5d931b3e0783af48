"""A model that generates images."""

from __future__ import annotations

import io
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from PIL import Image

from . import _inputs
from ._command import text
from ._errors import LdmError, RequestError
from ._inputs import Dtype, ImageInput, LayoutBox, SupportsSeed
from ._results import PipelineOutput, Progress
from ._server import Server, job_error


class Pipeline:
    """A model that generates images: text, classes, layouts, label maps or images to images.

    The model is loaded by the first call and stays in memory until :meth:`close`, the end of a ``with`` block, or the end of
    this process. Calls from several threads are sampled together where their settings are the same.

    Args:
        model: a run folder, a model folder, a diffusers folder, a checkpoint file, or ``emoji``, the model inside the program.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: the dtype of the weights: ``f32``, ``bf16``, ``f16``, ``auto``, or one of torch.
        threads: CPU threads; all cores by default.
        batch_size: the most images that are sampled at once.
        loras: a folder of LoRAs, which calls name.
        embeddings: a folder of learned words (textual inversion), for prompts to use.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "emoji",
        *,
        device: str = "auto",
        dtype: Dtype = "f32",
        threads: int | None = None,
        batch_size: int = 8,
        loras: str | os.PathLike[str] | None = None,
        embeddings: str | os.PathLike[str] | None = None,
    ) -> None:
        self._arguments = [f"--device={device}", f"--dtype={_inputs.dtype_name(dtype)}", f"--batch-size={batch_size}"]
        options = {"threads": threads, "loras": loras, "embeddings": embeddings}
        self._arguments += [f"--{name}={text(value)}" for name, value in options.items() if value is not None]
        # NAME=MODEL, so that a path may contain "=".
        path = os.fspath(model)
        self._arguments += ["--", f"model={path}" if "=" in path else path]
        self._model = path
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._finalizer: weakref.finalize[[], Pipeline] | None = None

    def __repr__(self) -> str:
        return f"ldm.Pipeline({self._model!r})"

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes the model from memory; the next call loads it again."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._server = self._finalizer = None

    def _running(self) -> Server:
        with self._lock:
            if self._server is None or not self._server.is_running():
                self._stop()
                self._server = Server(self._arguments)
                # At the end of this object or of the process, whichever comes first.
                self._finalizer = weakref.finalize(self, self._server.close)
            return self._server

    @property
    def info(self) -> dict[str, Any]:
        """The model: its ``conditioning``, ``height``, ``width``, ``class_names``, defaults, ``parameters`` and others."""
        data: dict[str, Any] = self._running().ask("GET", "/v1/models")["data"][0]
        return data

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        negative_prompt: str | Sequence[str] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        generator: SupportsSeed | None = None,
        eta: float | None = None,
        sampler: str | None = None,
        spacing: str | None = None,
        image: ImageInput | None = None,
        mask_image: ImageInput | None = None,
        strength: float | None = None,
        class_labels: int | str | Sequence[int | str] | None = None,
        layout: Sequence[LayoutBox] | None = None,
        label_map: ImageInput | None = None,
        clip_skip: int | None = None,
        prompt_syntax: str | None = None,
        loras: Mapping[str, float] | None = None,
        tile: int | str | None = None,
        callback: Callable[[Progress], object] | None = None,
    ) -> PipelineOutput:
        """Generates images. Whatever is left out is the model's default.

        Args:
            prompt: the text, or several, for models conditioned on one.
            negative_prompt: the text to guide away from; one for all prompts, or one for each.
            num_inference_steps: the number of sampling steps.
            guidance_scale: the scale of classifier-free guidance; 1 is none.
            height, width: the size in pixels.
            num_images_per_prompt: images for each prompt or class.
            seed: the seed of the first image; image i of the call has seed + i. A random one by default.
            generator: a ``torch.Generator``, whose initial seed is taken.
            eta: η of a stochastic sampler.
            sampler: a sampler by name, as ``ddim``, ``euler_a``, ``dpmpp_2m``.
            spacing: the spacing of the timesteps, as ``trailing``, ``karras``.
            image: the image to start from, to complete, or to enlarge, as the model does.
            mask_image: white where the image is sampled anew.
            strength: the denoising strength of an initial image, 0 to 1.
            class_labels: the class by number or name, or several, for models conditioned on one.
            layout: labeled boxes, for models conditioned on a layout.
            label_map: the label map, for models conditioned on one.
            clip_skip: the layer of CLIP's text model, counted from the last, which is 1.
            prompt_syntax: ``plain``, or ``weights`` as of web UIs.
            loras: names of files in the pipeline's folder of LoRAs, with their weights.
            tile: the side in pixels of the overlapping tiles of a large image, or ``auto``.
            callback: called with the :class:`Progress` at every change. An exception of it cancels the call.

        Raises:
            RequestError: an argument has an invalid value.
            LdmError: the program is missing, does not start, or failed.
        """
        if num_images_per_prompt < 1:
            raise RequestError(
                f"num_images_per_prompt: expected at least 1, got {num_images_per_prompt}", "num_images_per_prompt"
            )
        common: dict[str, Any] = {
            "n": num_images_per_prompt,
            "steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "height": height,
            "width": width,
            "eta": eta,
            "sampler": sampler,
            "spacing": spacing,
            "image": None if image is None else _inputs.encode_image(image),
            "mask": None if mask_image is None else _inputs.encode_image(mask_image),
            "label_map": None if label_map is None else _inputs.encode_image(label_map),
            "strength": strength,
            "layout": None if layout is None else _inputs.layout_fields(layout),
            "clip_skip": clip_skip,
            "prompt_syntax": prompt_syntax,
            "loras": None if loras is None else _inputs.lora_fields(loras),
            "tile": None if tile is None else str(tile),
        }
        common = {key: value for key, value in common.items() if value is not None}
        first = _inputs.seed_of(seed, generator)
        requests = [
            {**common, **condition, **({} if first is None else {"seed": first + index * num_images_per_prompt})}
            for index, condition in enumerate(_inputs.conditions(prompt, negative_prompt, class_labels))
        ]
        try:
            return _generate(self._running(), requests, callback)
        except RequestError as error:
            raise _inputs.renamed(error) from None


def _generate(
    server: Server, requests: list[dict[str, Any]], callback: Callable[[Progress], object] | None
) -> PipelineOutput:
    """Submits all jobs, which the server samples together where it can, and collects their images."""
    output = PipelineOutput([], [], [], [])
    jobs: list[str] = []
    try:
        for request in requests:
            jobs.append(server.ask("POST", "/v1/jobs", request)["id"])
        for index, job in enumerate(jobs):
            _collect(server, job, _wait(server, job, index, callback), output)
    finally:
        # Those left by an error, a callback or Ctrl+C are canceled, and results do not pile up on the disk.
        for job in jobs:
            _discard(server, job)
    return output


def _wait(server: Server, job: str, index: int, callback: Callable[[Progress], object] | None) -> dict[str, Any]:
    """Returns a job that has ended."""
    path = f"/v1/jobs/{job}"

    def preview() -> bytes | None:
        try:
            return server.read("GET", f"{path}/preview")
        except RequestError:
            return None

    last = None
    for view in server.events(f"{path}/events") if callback is not None else ():
        progress = view["progress"]
        # Events come for changes of the queue too.
        if callback is not None and view["state"] in ("running", "done") and progress != last:
            callback(Progress(index, progress["step"], progress["steps"], progress.get("seconds_left"), preview))
        last = progress
    view = {}
    while "finished" not in view:
        view = server.ask("GET", f"{path}?wait=60")
    if view["state"] != "done":
        raise job_error(view)
    return view


def _collect(server: Server, job: str, view: dict[str, Any], output: PipelineOutput) -> None:
    for each in view["images"]:
        data = server.read("GET", f"/v1/jobs/{job}/images/{each['index']}")
        image = Image.open(io.BytesIO(data))
        image.load()
        output.images.append(image)
        output.seeds.append(each["seed"])
        output.parameters.append(each["parameters"])
        output.nsfw_content_detected.append(each.get("nsfw", False))
        output._files.append(data)
    output.notes += view.get("notes", [])


def _discard(server: Server, job: str) -> None:
    for method, path in (("DELETE", f"/v1/jobs/{job}"), ("POST", f"/v1/jobs/{job}/cancel")):
        try:
            server.read(method, path)
            return
        except LdmError:
            continue  # a job that runs cannot be removed
