"""The program as a child of this process."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import IO

from ._binary import environment, find_binary
from ._errors import LdmError


def start(words: Sequence[str], *, secret: str | None = None) -> subprocess.Popen[bytes]:
    """Starts the program with arguments and with pipes; a secret is the key of its server.

    Raises:
        LdmError: the program or torch is missing, or the program does not start.
    """
    env = environment()
    if secret is not None:
        # Every user of the machine can read command lines.
        env["LDM_API_KEY"] = secret
    binary = find_binary()
    try:
        # In a session of its own: Ctrl+C in the terminal is for Python, which stops the child in order.
        return subprocess.Popen(
            [binary, *words],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise LdmError(f"{binary}: {error.strerror}; try to install the wheel of ldm again") from error


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """Returns a stream of a process that :func:`start` has started."""
    assert stream is not None, "opened by Popen"
    return stream


def describe(code: int) -> str:
    """Describes the exit code of a process, negative for a signal."""
    return f"ended by signal {-code}" if code < 0 else f"exit code {code}"
