"""Commands of the program, with their output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Union

from ._errors import CommandError, error_message
from ._process import describe, pipe, start

#: The value of an option: True is the flag alone, None and False leave it out, a sequence repeats it.
OptionValue = Union[None, bool, int, float, str, "os.PathLike[str]", Sequence[Union[int, float, str, "os.PathLike[str]"]]]

#: The time between two looks at a command that runs.
_TICK = 0.2


def flags(options: dict[str, OptionValue]) -> list[str]:
    """Returns options as words of the command line: ``num_images=8`` is ``--num-images=8``."""
    words = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            words += [f"{flag}={text(each)}" for each in value]
        else:
            words.append(f"{flag}={text(value)}")
    return words


def text(value: object) -> str:
    """Returns a path or another value as a word of the command line."""
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def execute(words: Sequence[str], tick: Callable[[], None] | None = None) -> str:
    """Runs a command and returns its stdout; its stderr goes to ``sys.stderr``, also in a notebook.

    Calls ``tick`` again and again. Ctrl+C, and exceptions of ``tick``, stop the command in order: a training writes a checkpoint.

    Raises:
        CommandError: the command failed.
    """
    process = start(words)
    pipe(process.stdin).close()
    output: list[bytes] = []
    lines: deque[str] = deque(maxlen=100)

    def read_output() -> None:
        output.append(pipe(process.stdout).read())

    def read_errors() -> None:
        for line in pipe(process.stderr):
            lines.append(line.decode(errors="replace"))
            sys.stderr.write(lines[-1])

    readers = [threading.Thread(target=each, daemon=True) for each in (read_output, read_errors)]
    for reader in readers:
        reader.start()
    try:
        _wait(process, tick)
    except BaseException:
        _stop(process)
        raise
    finally:
        for reader in readers:
            reader.join(5)
    if process.returncode != 0:
        raise CommandError(error_message("".join(lines)) or f"ldm {words[0]}: {describe(process.returncode)}", process.returncode)
    return b"".join(output).decode(errors="replace")


def _wait(process: subprocess.Popen[bytes], tick: Callable[[], None] | None) -> None:
    while True:
        try:
            process.wait(_TICK if tick else None)
            return
        except subprocess.TimeoutExpired:
            if tick:
                tick()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except BaseException:  # a second Ctrl+C too
        process.kill()
        process.wait()
        raise
