"""The command, and installations that are not complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional

import ldm
import pytest


def test_command_is_the_program(command: str) -> None:
    version = subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout
    assert version.startswith(f"ldm {ldm.__version__} (tch ")
    module = subprocess.run([sys.executable, "-m", "ldm", "--version"], check=True, capture_output=True, text=True)
    assert module.stdout == version
    # The exit code and the messages are the program's.
    wrong = subprocess.run([command, "txt2img", "--stepz"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "--stepz" in wrong.stderr


def test_command_imports_little(command: str) -> None:
    code = "import sys, ldm._launch; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "numpy", "PIL", "subprocess", "http.client", "json"} & set(modules)


def test_command_takes_the_place_of_python(command: str) -> None:
    process = subprocess.Popen([command, "serve", "--child", "--port=0", "-q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()
    assert os.readlink(f"/proc/{process.pid}/exe") == os.path.realpath(ldm.find_binary())
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()


def site(folder: Path, torch: Optional[str]) -> Path:
    """Makes an installation with a version of torch next to it."""
    package = Path(ldm.__file__).parent
    ignore = shutil.ignore_patterns("bin", "__pycache__")
    shutil.copytree(package, folder / "ldm", ignore=ignore)
    (folder / "ldm" / "bin").symlink_to(package / "bin")
    if torch is not None:
        (folder / "torch" / "lib").mkdir(parents=True)
        (folder / "torch" / "version.py").write_text(f"from typing import Optional\n__version__ = '{torch}'\n")
    return folder


@pytest.mark.parametrize(
    ("torch", "message"),
    [
        (None, "error: torch: expected version 2.11 in this Python environment, got none; try `"),
        ("2.9.1+cpu", "torch: expected torch 2.11, got 2.9.1+cpu; try `"),
        ("2.110.0", "torch: expected torch 2.11, got 2.110.0; try `"),
    ],
)
def test_wrong_torch_is_one_sentence(tmp_path: Path, torch: Optional[str], message: str) -> None:
    env = {"PYTHONPATH": str(site(tmp_path, torch)), "PATH": os.environ["PATH"]}
    result = subprocess.run(
        # Without the packages of this environment.
        [sys.executable, "-S", "-m", "ldm", "--version"], env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 1 and result.stdout == ""
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_torch_elsewhere_is_found(tmp_path: Path) -> None:
    # As in an environment with --system-site-packages.
    env = {**os.environ, "PYTHONPATH": str(site(tmp_path, None))}
    result = subprocess.run(
        [sys.executable, "-c", "import ldm; print(ldm.__file__, ldm.run('--version'))"],
        env=env, capture_output=True, text=True, cwd=tmp_path,
    )
    assert result.stdout.startswith(f"{tmp_path}/ldm/__init__.py ldm "), result.stderr


def test_missing_program_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDM_BINARY", "/nowhere/ldm")
    with pytest.raises(ldm.LdmError, match="^/nowhere/ldm: expected the program ldm, got no such file; try unsetting"):
        ldm.find_binary()
