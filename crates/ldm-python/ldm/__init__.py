"""Latent diffusion models: images, training and evaluation by the program ``ldm``, which this package holds.

>>> import ldm
>>> pipe = ldm.Pipeline()                      # the emoji model inside the program
>>> image = pipe("red heart", seed=1).images[0]
>>> image.size
(64, 64)
>>> pipe.close()

The program runs as a process of its own. This module talks to it, and imports neither torch nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._binary import find_binary as find_binary
    from ._errors import CommandError as CommandError
    from ._errors import LdmError as LdmError
    from ._errors import RequestError as RequestError
    from ._pipeline import Pipeline as Pipeline
    from ._results import PipelineOutput as PipelineOutput
    from ._results import Progress as Progress
    from ._training import TrainingRun as TrainingRun
    from ._training import evaluate as evaluate
    from ._training import run as run
    from ._training import train as train

    __version__: str

_MODULES = {
    "find_binary": "_binary",
    "CommandError": "_errors",
    "LdmError": "_errors",
    "RequestError": "_errors",
    "Pipeline": "_pipeline",
    "PipelineOutput": "_results",
    "Progress": "_results",
    "TrainingRun": "_training",
    "evaluate": "_training",
    "run": "_training",
    "train": "_training",
}

__all__ = [
    "CommandError",
    "LdmError",
    "Pipeline",
    "PipelineOutput",
    "Progress",
    "RequestError",
    "TrainingRun",
    "evaluate",
    "find_binary",
    "run",
    "train",
]


def __getattr__(name: str) -> Any:
    # The command `ldm` imports this file too, and must start without Pillow, http.client and the rest.
    if name == "__version__":
        from importlib.metadata import version

        return version("ldm")
    if name not in _MODULES:
        raise AttributeError(f"module 'ldm' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"ldm.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
