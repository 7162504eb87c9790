"""Long work says what it does, on a terminal and off it, and leaves no stale lines; Ctrl-C ends it with one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from ditzoo.cli import live, output
from tests.support.terminal import ROOT, run_in_terminal

STAGES = """
import logging
from ditzoo.cli import output

def work(display):
    with display.status("looking for the export"):
        pass
    with display.stage("tracing") as report:
        report("Timing graph nodes", 0.5)
        logging.getLogger("ditzoo.locks").warning("waiting for /a/b, which process 7 (`ditzoo pull x`) is using, it seems")
    with display.stage("x" * 100):
        pass
    with display.progress("drawing", 2) as advance:
        advance()
        output.talk("half of it")
        advance()

with output.warnings():
    work(output)
    with output.progress("the whole of the work, which has a long name: torch,onnxruntime,tensorrt", 2) as bar:
        work(bar)
        bar()
        bar()
output.data("done")
"""

TRANSFERS = """
from ditzoo.cli import output
with output.transfer() as advance:
    for done in (0, 500_000, 1_000_000):
        advance("transformer/model.safetensors", done, 1_000_000)
    output.talk("the newest revision")
    advance("unknown.pt", 0, 0)
    advance("unknown.pt", 512, 0)
"""

TIME = r"\d+\.\d s"


def test_a_terminal_keeps_the_stages_and_no_stale_lines() -> None:
    status, lines = run_in_terminal(["-c", STAGES])
    assert status == 0
    text = re.sub(TIME, "T", "\n".join(lines))
    once = [
        "waiting for /a/b, which process 7 (`ditzoo pull x`) is using, it seems",
        "tracing: T",
        80 * "x",
        20 * "x" + ": T",
        "half of it",
    ]
    assert text.splitlines() == [*once, *once, "done"]


def test_a_pipe_gets_a_line_for_each_stage(capfd: pytest.CaptureFixture[str]) -> None:
    with output.progress("all", 1) as bar:
        for display in (output, bar):
            with display.status("looking"), display.stage("tracing") as report:
                report("Timing graph nodes", 0.5)
    written = capfd.readouterr()
    assert [re.fullmatch(r"\[.* s\] tracing", line) is not None for line in written.err.splitlines()] == [True, True]
    assert written.out == ""


def test_downloads_leave_a_line_with_bytes_and_rate(capfd: pytest.CaptureFixture[str]) -> None:
    status, lines = run_in_terminal(["-c", TRANSFERS])
    assert status == 0
    ends = [
        rf"transformer/model.safetensors: 1.0 MB in {TIME}, \S+ .?B/s",
        "the newest revision",
        rf"unknown.pt: 512 bytes in {TIME}, \S+ .*/s",
    ]
    assert all(re.fullmatch(end, line) for end, line in zip(ends, lines, strict=True))
    with output.transfer() as advance:
        advance("a/b.bin", 0, 2_700_000_000)
        advance("a/b.bin", 2_700_000_000, 2_700_000_000)
    begin, end = capfd.readouterr().err.splitlines()
    assert begin.endswith("s] downloading a/b.bin, 2.7 GB")
    assert end.startswith("a/b.bin: 2.7 GB in ")


def test_times_and_estimates_are_words_of_the_size_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [live.seconds(value) for value in (0.04, 119.94, 125, 3725)] == ["0.0 s", "119.9 s", "2 min 5 s", "62 min 5 s"]
    now = iter([0.0, 30.0, 30.0, 30.0, 30.0])
    monkeypatch.setattr(live.time, "monotonic", lambda: next(now))
    stage = live.Stage("building the engine")
    stage.report("Timing tactics", 0.25)
    assert stage.text() == "building the engine, 30.0 s, Timing tactics, about 90.0 s left"


INTERRUPTED_WHILE_IMPORTING = """
import os, signal, sys
from ditzoo.__main__ import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == WANTED:
            os.kill(os.getpid(), signal.SIGINT)

WANTED = sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.meta_path.insert(0, Interrupting())
main()
"""


@pytest.mark.parametrize("module", ["typer", "msgspec", "numpy"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str) -> None:
    done = interrupted(INTERRUPTED_WHILE_IMPORTING, module, "plan", "show", "dit-digits", "--steps", "2")
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (130, ["stopped"])
    assert "Traceback" not in done.stderr


def interrupted(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "export")])
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
