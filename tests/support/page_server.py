"""`ditzoo ui` in a process of its own, and requests to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class PageServer:
    """A running `ditzoo ui`."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.address = f"http://127.0.0.1:{port}"

    def request(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, **form: str) -> Answer:
        """Sends a form. Fields that are missing have the values of a small drawing."""
        fields = {"model": "dit-digits", "backend": "onnxruntime", **form}
        return self.request("POST", path, json.dumps(fields).encode(), JSON)

    def states(self, job: str) -> Iterator[dict[str, Any]]:
        """The states of a job, until the final one."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", f"/api/jobs/{job}/states")
            for line in connection.getresponse():
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))
        finally:
            connection.close()

    def interrupt(self) -> tuple[int, str]:
        """Presses Ctrl-C. Returns the exit status and what was written to stderr since the start."""
        self.process.send_signal(signal.SIGINT)
        error = self.process.communicate(timeout=60)[1]
        return self.process.returncode, error


@contextmanager
def serving() -> Iterator[PageServer]:
    """The page on a free port."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "export")])
    heard = ["env", "--default-signal=INT"]  # a shell's background jobs ignore Ctrl-C
    command = [*heard, sys.executable, "-m", "ditzoo", "ui", "--port", "0"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line + process.stderr.read()
        yield PageServer(process, int(found[1]))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
