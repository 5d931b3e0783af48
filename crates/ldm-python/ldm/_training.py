"""Training, evaluation, and every other command."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Union

from ._command import OptionValue, execute, flags, text
from ._errors import CommandError, RequestError
from ._pipeline import Pipeline

StrPath = Union[str, "os.PathLike[str]"]


class TrainingRun:
    """The folder of a training run, which may still be written."""

    def __init__(self, path: StrPath) -> None:
        #: The folder.
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"ldm.TrainingRun({str(self.path)!r})"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The log, the oldest entry first: ``step``, ``seconds`` and every loss by its name, or the metrics of a validation."""
        return _read_metrics(self.path / "metrics.jsonl", 0)[0]

    @property
    def samples(self) -> list[Path]:
        """The images sampled during training, the oldest first."""
        return sorted((self.path / "samples").glob("*.png"))

    @property
    def config(self) -> str:
        """The complete config, YAML."""
        return (self.path / "config.yaml").read_text("utf-8")

    @property
    def model(self) -> Path:
        """The folder of the trained model, for ``Pipeline`` and ``--model``."""
        return self.path / "model"

    def pipeline(self, *, device: str = "auto", threads: int | None = None) -> Pipeline:
        """Returns a pipeline of the trained model."""
        return Pipeline(self.path, device=device, threads=threads)


def train(
    config: StrPath | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    run: StrPath | None = None,
    resume: StrPath | None = None,
    device: str = "auto",
    threads: int | None = None,
    nproc: int | None = None,
    callback: Callable[[dict[str, Any]], object] | None = None,
) -> TrainingRun:
    """Trains the model of a config and returns its run, once it is complete.

    Args:
        config: a YAML file, or its contents.
        overrides: values in place of those of the config, by their keys: ``{"train.steps": 100}``.
        run: the run's folder; ``runs/NAME`` of a config ``NAME.yaml`` by default.
        resume: a run to go on with, in place of a config.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads; all cores by default.
        nproc: ranks on this machine: one for each GPU on CUDA.
        callback: called with every entry of the log, as of :attr:`TrainingRun.metrics`. An exception of it stops the training, as Ctrl+C does, with a
            checkpoint from which ``resume`` goes on.

    Raises:
        CommandError: the config is invalid, or the training failed.
    """
    if (config is None) == (resume is None):
        raise RequestError("config: expected a config or resume, got " + ("neither" if config is None else "both"), "config")
    if isinstance(config, Mapping) and run is None:
        raise RequestError("run: expected the folder of the run, got none for a config without a file name", "run")
    folder = Path(resume or run or Path("runs") / Path(text(config)).stem)
    words = ["train", *flags({"device": device, "threads": threads, "nproc": nproc})]
    words += [f"--run={folder}"] if resume is None else [f"--resume={folder}"]
    # JSON is YAML.
    changes = [f"{key}={json.dumps(value)}" for key, value in (overrides or {}).items()]
    with tempfile.TemporaryDirectory(prefix="ldm-") as scratch:
        if isinstance(config, Mapping):
            file = Path(scratch) / "config.yaml"
            file.write_text(json.dumps(config), "utf-8")
            config = file
        words += ["--", *([] if config is None else [text(config)]), *changes]
        _follow(words, folder, callback)
    return TrainingRun(folder)


def _follow(words: list[str], run: Path, callback: Callable[[dict[str, Any]], object] | None) -> None:
    """Runs a training and passes new lines of its metrics on."""
    if callback is None:
        execute(words)
        return
    file = run / "metrics.jsonl"
    offset = _read_metrics(file, 0)[1]

    def tick() -> None:
        nonlocal offset
        steps, offset = _read_metrics(file, offset)
        for step in steps:
            callback(step)

    execute(words, tick)
    tick()


def _read_metrics(file: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Returns the complete lines from a byte on, and the byte after them."""
    try:
        with open(file, "rb") as lines:
            # A resumed run drops the steps after its checkpoint.
            offset = min(offset, lines.seek(0, os.SEEK_END))
            lines.seek(offset)
            data = lines.read()
    except FileNotFoundError:
        return [], 0
    complete = data[: data.rfind(b"\n") + 1]
    return [json.loads(line) for line in complete.splitlines()], offset + len(complete)


def evaluate(kind: str, *inputs: StrPath, **options: OptionValue) -> dict[str, Any]:
    """Evaluates images or a model by ``ldm eval KIND``, and returns its results.

    >>> import ldm
    >>> scores = ldm.evaluate("paired", "generated", "originals", size=64)  # doctest: +SKIP
    >>> scores["psnr"]["mean"]  # doctest: +SKIP

    Args:
        kind: ``reconstruction``, ``generation``, ``paired``, ``clip-score`` or ``rate-distortion``.
        inputs: the folders or datasets of the command.
        options: its options, with underscores: ``num_images=8`` is ``--num-images 8``.

    Raises:
        CommandError: the command failed.
    """
    output = execute(["eval", kind, *flags(options), "--json", "--", *map(text, inputs)])
    results = json.loads(output)
    if not isinstance(results, dict):
        raise CommandError(f"ldm eval {kind}: expected a JSON object, got {output[:100]}", 0)
    return results


def run(*words: StrPath, **options: OptionValue) -> str:
    """Runs any command and returns its stdout: ``ldm.run("data", "info", "photos.tar", size=64)``.

    Options may be words too: ``ldm.run("doctor", "--quiet")``.

    Raises:
        CommandError: the command failed.
    """
    return execute([*map(text, words), *flags(options)])
