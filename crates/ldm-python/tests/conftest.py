"""Fixtures: the command of the environment, and one pipeline for the tests that only generate."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import ldm
import pytest


@pytest.fixture(scope="session")
def command() -> str:
    """The command ``ldm`` as installed next to Python."""
    return os.path.join(os.path.dirname(sys.executable), "ldm")


@pytest.fixture(scope="session")
def pipe() -> Iterator[ldm.Pipeline]:
    with ldm.Pipeline() as pipe:
        yield pipe
