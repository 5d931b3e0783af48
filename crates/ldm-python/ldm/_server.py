"""``ldm serve`` as a child of this process, and its API ``/v1/jobs``."""

from __future__ import annotations

import json
import logging
import os
import secrets
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any

from ._errors import LdmError, RequestError, error_message
from ._process import describe, pipe, start

_LOG = logging.getLogger("ldm")

# The limits of a server protect it from strangers; this one has a single client.
_LIMITS = ["--queue=1000000", "--max-images=1000000", "--max-body=16384", f"--max-pixels={1 << 40}", "--keep-size=100000"]
_LIMITS += [f"--max-work={1 << 60}", "--max-seconds=0"]


class Server:
    """A server of one model, on a free port of this machine, with a random key.

    It ends with its standard input, so also when this process is killed.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._key = secrets.token_urlsafe(32)
        words = ["serve", "--child", "--port=0", "--quiet", *_LIMITS, *arguments]
        self._process = start(words, secret=self._key)
        self._owner = os.getpid()
        self._lines: deque[str] = deque(maxlen=20)
        self._ready = False
        self._reader = threading.Thread(target=self._read_errors, name="ldm-stderr", daemon=True)
        self._reader.start()
        try:
            self._port = self._read_port()
        except BaseException:
            self.close()
            raise

    def _read_port(self) -> int:
        line = pipe(self._process.stdout).readline().decode()
        if not line:
            raise self._ended()
        self._ready = True
        return int(line.rpartition(":")[2])

    def _read_errors(self) -> None:
        for line in pipe(self._process.stderr):
            text = line.decode(errors="replace").rstrip()
            self._lines.append(text)
            if self._ready:
                _LOG.warning("%s", text)

    def _ended(self) -> LdmError:
        """Describes the end of the server."""
        code = self._process.wait()
        self._reader.join(5)
        return LdmError(error_message("\n".join(self._lines)) or f"ldm serve: {describe(code)}")

    def is_running(self) -> bool:
        """Returns True unless the server has ended."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends the server, with whatever it does."""
        # A fork of this process has the pipe too, but the server is not its own.
        if os.getpid() != self._owner:
            return
        pipe(self._process.stdin).close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        pipe(self._process.stdout).close()

    def _send(self, method: str, path: str, body: object | None = None) -> tuple[HTTPConnection, HTTPResponse]:
        headers = {"authorization": f"Bearer {self._key}"}
        data = None
        if body is not None:
            headers["content-type"] = "application/json"
            data = json.dumps(body).encode()
        # Not urllib, which would ask the proxy of the environment.
        connection = HTTPConnection("127.0.0.1", self._port)
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            if response.status >= 400:
                raise _error(json.loads(response.read())["error"])
        except (OSError, HTTPException) as error:
            connection.close()
            raise self._lost(error) from error
        except BaseException:
            connection.close()
            raise
        return connection, response

    def _lost(self, error: Exception) -> LdmError:
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            return LdmError(f"ldm serve: {error}")
        return self._ended()

    def read(self, method: str, path: str, body: object | None = None) -> bytes:
        """Sends a request; returns the body of the answer."""
        connection, response = self._send(method, path, body)
        try:
            return response.read()
        except (OSError, HTTPException) as error:
            raise self._lost(error) from error
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: object | None = None) -> dict[str, Any]:
        """Sends a request; returns the answer, a JSON object."""
        answer: dict[str, Any] = json.loads(self.read(method, path, body))
        return answer

    def events(self, path: str) -> Iterator[dict[str, Any]]:
        """Yields the data of server-sent events."""
        connection, response = self._send("GET", path)
        try:
            for line in response:
                if line.startswith(b"data:"):
                    event: dict[str, Any] = json.loads(line[len(b"data:") :])
                    yield event
        except (OSError, HTTPException) as error:
            raise self._lost(error) from error
        finally:
            connection.close()


def job_error(job: dict[str, Any]) -> LdmError:
    """Returns the error of a job that has no images."""
    error = job.get("error") or {"kind": job["state"], "message": f"the job was {job['state']}"}
    return _of_kind(error["kind"], error["message"], error.get("field"))


def _error(body: dict[str, Any]) -> LdmError:
    return _of_kind(body["code"], body["message"], body.get("param"))


def _of_kind(kind: str, message: str, field: str | None) -> LdmError:
    if kind in ("invalid", "not_found", "too_large"):
        return RequestError(message, field)
    return LdmError(message)
