"""The server's life: it ends with its pipeline, and with Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ldm
import pytest

_ONE_CALL = """
import ldm, os, sys
pipe = ldm.Pipeline(threads=1)
print(pipe._running()._process.pid, flush=True)
pipe("fire", num_inference_steps=1000)
"""


def start(code: str, scratch: Path) -> tuple[subprocess.Popen[str], int]:
    """Starts Python with a pipeline; returns it with the process id of the server."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
        start_new_session=True,
    )
    assert process.stdout is not None
    server = int(process.stdout.readline())
    assert runs(server) and list(scratch.iterdir())
    return process, server


def runs(pid: int) -> bool:
    try:
        # A zombie has ended, and waits for a parent that looks.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    until = time.monotonic() + 20
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not runs(pid)


def test_killed_python_leaves_nothing(tmp_path: Path) -> None:
    process, server = start(_ONE_CALL, tmp_path)
    time.sleep(1)  # in the middle of the call
    process.kill()
    process.communicate()
    assert ends(server)
    assert not list(tmp_path.iterdir())


def test_interrupt_cancels_the_call(tmp_path: Path) -> None:
    process, server = start(_ONE_CALL, tmp_path)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors and process.returncode != 0
    assert ends(server)
    assert not list(tmp_path.iterdir())


def test_end_of_python_ends_the_server(tmp_path: Path) -> None:
    process, server = start(_ONE_CALL.replace("1000", "1"), tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and errors == ""
    assert not runs(server)
    assert not list(tmp_path.iterdir())


def test_pipeline_without_references_ends_its_server() -> None:
    pipe = ldm.Pipeline(threads=1)
    process = pipe._running()._process
    del pipe
    assert process.poll() is not None


def test_server_that_was_killed_is_an_error_and_starts_again() -> None:
    with ldm.Pipeline(threads=1) as pipe:
        process = pipe._running()._process

        def kill(progress: ldm.Progress) -> None:
            process.kill()

        with pytest.raises(ldm.LdmError, match="ldm serve: ended by signal 9"):
            pipe("fire", num_inference_steps=200, callback=kill)
        assert pipe("fire", num_inference_steps=1, seed=1).seeds == [1]
        assert pipe._running()._process.pid != process.pid


def test_forked_child_leaves_the_server_alone() -> None:
    with ldm.Pipeline(threads=1) as pipe:
        server = pipe._running()
        child = os.fork()
        if child == 0:
            server.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert server.is_running()
        assert pipe("fire", num_inference_steps=1, seed=2).seeds == [2]


def test_key_is_not_on_the_command_line_and_is_needed() -> None:
    with ldm.Pipeline(threads=1) as pipe:
        server = pipe._running()
        line = Path(f"/proc/{server._process.pid}/cmdline").read_bytes().decode()
        assert "serve" in line and server._key not in line
        server._key = "another"
        with pytest.raises(ldm.LdmError, match="key|credentials|password"):
            pipe.info
