"""Exceptions."""

from __future__ import annotations


class LdmError(RuntimeError):
    """An error of the program or of its installation; its text is one sentence."""


class RequestError(LdmError, ValueError):
    """A request that cannot be fulfilled as it stands."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        #: The argument with the invalid value, where there is one.
        self.field = field


class CommandError(LdmError):
    """A command that failed."""

    def __init__(self, message: str, returncode: int) -> None:
        super().__init__(message)
        #: The exit code; the negative number of the signal that ended the command.
        self.returncode = returncode


def error_message(stderr: str) -> str:
    """Returns the program's error in one sentence, with its causes; empty where stderr has none."""
    error = stderr.partition("error: ")[2].replace("\n  caused by: ", ": ")
    # A wrong usage is followed by hints.
    return error.partition("\n")[0].strip()
