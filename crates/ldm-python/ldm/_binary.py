"""The program ``ldm`` of this package, and the libtorch that it needs."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from ._errors import LdmError

#: The version of torch whose libraries the program is linked with: its C++ interface changes with every release.
TORCH = "2.11"


def find_binary() -> str:
    """Returns the path of the program: ``LDM_BINARY`` where it is set, else that of this package."""
    chosen = os.environ.get("LDM_BINARY")
    path = chosen or os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "ldm")
    if not os.path.isfile(path):
        remedy = "unsetting LDM_BINARY" if chosen else "to install the wheel of ldm again"
        raise LdmError(f"{path}: expected the program ldm, got no such file; try {remedy}")
    return path


def environment() -> dict[str, str]:
    """Returns the environment in which the program finds libtorch.

    Raises:
        LdmError: torch is not installed, or has another version.
    """
    env = dict(os.environ)
    if env.get("LDM_BINARY"):
        return env  # a build of the user's, linked with a libtorch of its own
    remedy = f"`{os.path.basename(sys.executable or 'python')} -m pip install 'torch=={TORCH}.*'`"
    # Next to this package, where pip installs torch and the rpath of the program leads.
    usual = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "torch")
    torch = usual if os.path.isdir(usual) else _find_torch()
    if torch is None:
        raise LdmError(f"torch: expected version {TORCH} in this Python environment, got none; try {remedy}")
    version = _version(torch)
    if version is None or not version.startswith(f"{TORCH}."):
        raise LdmError(f"{torch}: expected torch {TORCH}, got {version or 'no version.py'}; try {remedy}")
    if torch is not usual:
        rest = env.get("LD_LIBRARY_PATH")
        env["LD_LIBRARY_PATH"] = os.path.join(torch, "lib") + (f":{rest}" if rest else "")
    return env


def _find_torch() -> str | None:
    """Returns the folder of torch, without importing it: that would take a second."""
    spec = find_spec("torch")
    return next(iter(spec.submodule_search_locations or []), None) if spec else None


def _version(torch: str) -> str | None:
    try:
        with open(os.path.join(torch, "version.py"), encoding="utf-8") as file:
            for line in file:
                if line.startswith("__version__"):
                    return line.partition("=")[2].strip(" \n'\"")
    except OSError:
        pass
    return None
