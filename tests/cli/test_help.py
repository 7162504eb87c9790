"""Help, and the options for all commands."""

from __future__ import annotations

import os
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
from ditzoo.cli.help import EXAMPLES


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


@pytest.mark.parametrize("command", EXAMPLES)
def test_help_cuts_nothing(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option is there in full, with the words of its help; an option without a value shows no type of one."""
    import typer

    monkeypatch.setenv("COLUMNS", "80")
    assert run([*command.split(), "-h"]) == 0
    text = capsys.readouterr().out
    assert "…" not in text
    assert "<bool>" not in text
    assert max(map(len, text.splitlines())) <= 80
    shown = re.sub("[│╭╮╰╯─]", " ", text)
    node = typer.main.get_command(app)
    for word in command.split():
        node = node.commands[word]
    for parameter in node.params:
        assert all(f" {option} " in shown for option in parameter.opts if option.startswith("-"))
        assert set(re.findall(r"\w{4,}", parameter.help or "")) <= set(re.findall(r"\w{4,}", shown)), parameter.name


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sample dit-d", "dit-digits"),
        ("info uvit-dig", "uvit-digits"),
        ("sample dit-digits --backend onn", "onnxruntime"),
        ("parity dit-digits --backends torch,open", "torch,openvino"),
        ("sample dit-digits --solver dpm", "dpmpp"),
        ("export onnx dit-digits --precision f", "fp16"),
        ("export onnx dit-digits --target ten", "tensorrt"),
        ("export tensorrt dit-digits --flavour tensorrt_", "tensorrt_rtx"),
        ("list --state e", "embedded"),
        ("list --family light", "lightningdit"),
        ("bench dit-digits --device tensorrt_", "tensorrt_rtx"),
    ],
)
def test_the_shell_completes_values(typed: str, offered: str) -> None:
    """What the script of `--show-completion` asks for as a user of bash presses the tabulator key."""
    words = typed.split()
    asked = {"COMP_WORDS": f"ditzoo {typed}", "COMP_CWORD": str(len(words)), "_DITZOO_COMPLETE": "complete_bash"}
    done = subprocess.run([sys.executable, "-m", "ditzoo"], env={**os.environ, **asked}, capture_output=True, text=True)
    assert offered in done.stdout.split(), done.stderr
    assert all(line.startswith(words[-1]) for line in done.stdout.split())


@pytest.mark.parametrize("group", ["cache", "plan", "export", ""])
def test_a_group_alone_shows_its_help(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group.split()) == 0
    out, err = capsys.readouterr()
    assert "Usage: ditzoo" in out
    assert err == ""


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


@pytest.mark.parametrize("typed", ["list -V", "list --version", "export onnx dit-digits --out x --version"])
def test_the_version_may_stand_after_a_command(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(typed.split()) == 0
    assert capsys.readouterr().out == f"{ditzoo.__version__}\n"


def test_an_option_of_a_command_before_it_is_told_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--json", "list"]) == 2
    assert "the options of a command stand after its name" in capsys.readouterr().err
    assert run(["list", "--jsn"]) == 2
    assert "stand after" not in capsys.readouterr().err
