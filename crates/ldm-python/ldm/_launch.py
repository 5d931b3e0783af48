"""The command ``ldm``: replaces this Python by the program."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from ._binary import environment, find_binary
from ._errors import LdmError


def main() -> NoReturn:
    """Runs the program with the arguments of this one, in its place: signals and the exit code are the program's."""
    try:
        binary = find_binary()
        os.execve(binary, ["ldm", *sys.argv[1:]], environment())
    except LdmError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {binary}: {error.strerror}; try to install the wheel of ldm again")
