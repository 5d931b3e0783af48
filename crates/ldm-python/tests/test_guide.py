"""The page for Python users, as written: its commands in a shell, its code in one session."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[3] / "docs/guide/python.md"
README = Path(__file__).parents[1] / "README.md"


def blocks(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("page", "installs"), [(GUIDE, True), (README, False)], ids=["guide", "readme"])
def test_page_runs(page: Path, installs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable) + ":" + os.environ["PATH"])
    parts = blocks(page)
    assert parts
    if installs:
        # Done before these tests: `cargo xtask dist --check-wheel` runs the first block of the guide.
        language, text = parts.pop(0)
        assert language == "sh" and "pip install" in text
    names: dict[str, object] = {"__name__": "guide"}
    for language, text in parts:
        if language == "sh":
            subprocess.run(["bash", "-e", "-c", text], check=True)
        else:
            exec(compile(text, page.name, "exec"), names)


def test_docstring_of_the_module_runs() -> None:
    import doctest

    import ldm

    result = doctest.testmod(ldm)
    assert result.attempted > 0 and result.failed == 0
