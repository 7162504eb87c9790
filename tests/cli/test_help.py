"""Help, and the options for all commands."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ditzoo
from ditzoo.backends.table import BACKENDS
from ditzoo.cli import run
from ditzoo.cli.app import app
from ditzoo.cli.examples import EXAMPLES


def commands() -> Iterator[str]:
    """Every command and group, by the words that follow `ditzoo`."""
    import typer

    def below(command: object, path: str) -> Iterator[str]:
        yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, f"{path} {name}".strip())

    yield from below(typer.main.get_command(app), "")


def test_every_command_has_examples() -> None:
    assert set(commands()) == set(EXAMPLES)
    assert all(lines for lines in EXAMPLES.values())


@pytest.mark.parametrize("command", EXAMPLES)
def test_every_example_is_a_command_line_that_is_understood(command: str) -> None:
    import typer

    root = typer.main.get_command(app)
    for line in EXAMPLES[command]:
        words = shlex.split(line)
        assert words[0] == "ditzoo"
        assert " ".join(words[1:]).startswith(command)
        context, rest = root.make_context("ditzoo", words[1:], resilient_parsing=False), words[1:]
        node = root
        while hasattr(node, "commands") and rest and rest[0] in node.commands:
            node, rest = node.commands[rest[0]], rest[1:]
        node.make_context(node.name, rest, parent=context)


def test_help_has_a_short_form_and_hides_no_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", "-h"]) == 0
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert "Examples: ditzoo sample" in text
    assert all(name in text for name in BACKENDS)
    assert "Default: the model's." in text
    assert "-h" in text


@pytest.mark.parametrize("command", ["sample", "parity", "bench"])
def test_all_backends_are_named(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in BACKENDS)


def test_the_version_has_a_short_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-V"]) == 0
    assert capsys.readouterr().out == f"{ditzoo.__version__}\n"


@pytest.mark.parametrize("typed", ["--quiet list", "list --quiet", "list -q", "list -q --family dit"])
def test_quiet_leaves_only_results(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(typed.split()) == 0
    out, err = capsys.readouterr()
    assert "dit-digits" in out
    assert err == ""


def test_quiet_ends_with_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, said in (("plan show dit-digits --steps 2 -q", False), ("plan show dit-digits --steps 2", True)):
        assert run(typed.split()) == 0
        assert bool(capsys.readouterr().err) is said


def test_quiet_keeps_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", "nobody", "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown model")


def test_verbose_says_where_an_error_arose(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", "nobody", "-v"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: unknown model")


def test_the_users_cards_may_be_named_after_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in (["list", "--zoo", str(tmp_path / "none.toml")], ["list", f"--zoo={tmp_path / 'none.toml'}"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DITZOO_ZOO", "")
            assert run(typed) == 2
        assert "none.toml" in capsys.readouterr().err


def test_an_option_that_is_a_value_stays_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", "dit-digits", "--classes", "--quiet"]) == 2
    assert "--quiet" in capsys.readouterr().err


def test_interrupting_the_start_prints_one_line() -> None:
    """The interrupt comes while the command imports its libraries: the slow import waits for it."""
    code = (
        "import builtins, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # the tests may run where Ctrl-C is ignored
        "from ditzoo.__main__ import main\n"
        "original = builtins.__import__\n"
        "def slow(name, *rest, **more):\n"
        "    if name == 'typer':\n"
        "        print('importing', flush=True)\n"
        "        import time; time.sleep(60)\n"
        "    return original(name, *rest, **more)\n"
        "builtins.__import__ = slow\n"
        "sys.argv = ['ditzoo', 'list']\n"
        "main()\n"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "importing\n"
    time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate()
    assert started.returncode == 130
    assert err == "stopped\n"
