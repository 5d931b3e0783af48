"""The types of the installed package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_USE = """
import ldm
from PIL import Image

output = ldm.Pipeline("emoji", dtype="bf16")(["a", "b"], image=Image.new("RGB", (64, 64)), seed=1)
reveal_type(output.images[0])
reveal_type(ldm.train("a.yaml", {"train.steps": 1}).samples)
reveal_type(ldm.evaluate("paired", "a", "b", num_images=4, json=True))
reveal_type(ldm.find_binary())
ldm.Pipeline()("a", steps=3)
"""


def mypy(*words: str) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir=/dev/null", "--python-version=3.10", *words]
    return subprocess.run(command, capture_output=True, text=True).stdout


def test_package_is_strictly_typed() -> None:
    assert "Success: no issues found" in (output := mypy("-p", "ldm")), output


def test_callers_see_the_types(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(_USE)
    output = mypy(str(tmp_path / "use.py"))
    for expected in ["PIL.Image.Image", "list[pathlib.Path]", "dict[str, Any]", '"str"']:
        assert expected in output, output
    assert 'Unexpected keyword argument "steps"' in output and "Found 1 error" in output, output


def test_tests_are_typed() -> None:
    assert "Success: no issues found" in (output := mypy(str(Path(__file__).parent))), output
