"""Malformed environment variables are one clear line, passwords are never shown, and tokens stay with the user's server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ditzoo.cli import run
from ditzoo.errors import UsageError
from ditzoo.hub.environment import check_environment, without_password
from recipes.checkpoints import hub_server
from tests.support.hub_models import TINY, Desk, diffusers, state

MALFORMED = [
    ("HF_HUB_DOWNLOAD_TIMEOUT", "abc", "must be a whole number of seconds, not 'abc'"),
    ("HF_HUB_ETAG_TIMEOUT", "1.5", "must be a whole number of seconds"),
    ("HF_HUB_ETAG_TIMEOUT", "9" * 5000, "must be a whole number of seconds"),
    ("HF_ENDPOINT", "", "must be the address of a server, such as https://huggingface.co, not ''"),
    ("HF_ENDPOINT", "notaurl", "must be the address of a server"),
    ("HF_ENDPOINT", "http://[::1", "must be the address of a server"),
    ("HF_ENDPOINT", "http://127.0.0.1:99999", "must be the address of a server"),
    ("HF_ENDPOINT", "file:///etc", "must be the address of a server"),
    ("HF_ENDPOINT", "http://", "must be the address of a server"),
    ("HF_ENDPOINT", "ftp://user:secret@host", "not 'ftp://host'"),
    ("HF_TOKEN", "hf_é", "has characters that no token has"),
    ("HF_TOKEN", "hf_a\nb", "has characters that no token has"),
    ("HF_HOME", "/dev/null", "must be a folder, and /dev/null is not one"),
    ("DITZOO_CACHE", "/dev/null", "must be a folder, and /dev/null is not one"),
]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with hub_server.serving() as hub:
        desk = Desk(tmp_path, hub)
        desk.offers(diffusers(state(TINY), TINY))
        yield desk


@pytest.mark.parametrize(("name", "value", "message"), MALFORMED)
def test_a_malformed_variable_is_one_clear_line(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name):
        check_environment()
    assert run(["cache", "ls"]) == 2
    error = capfd.readouterr().err
    assert f"{name} {message}" in error or message in error
    assert error.count("\n") == 1
    assert "secret" not in error
    assert len(error) < 300


def test_sound_variables_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "HF_HUB_DOWNLOAD_TIMEOUT": "30",
        "HF_ENDPOINT": "http://[::1]:8080/mirror",
        "HF_TOKEN": "hf_abc\n",
        "HF_HOME": str(tmp_path / "not there yet"),
    }.items():
        monkeypatch.setenv(name, value)
    check_environment()


def test_a_password_in_the_address_is_never_shown(desk: Desk) -> None:
    port = desk.hub.url.rpartition(":")[2]
    for server in (f"http://user:s@cret@127.0.0.1:{port}", "http://user:s%40cret@127.0.0.1:1"):
        done = desk.run("pull", "hf:team/none", "--timeout", "0.5", HF_ENDPOINT=server)
        assert done.returncode == 2
        assert "127.0.0.1" in done.stderr
        assert "cret" not in done.stderr
    assert without_password("at 'https://a:b@c/d' and http://e@f, not g@h") == "at 'https://c/d' and http://f, not g@h"


def test_the_token_goes_to_no_server_that_an_answer_names(desk: Desk) -> None:
    """The Hub's client would ask the server that is named for Xet, with the user's token."""
    with hub_server.serving() as other:
        desk.hub.faults.lies = {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{other.url}/api/models/team/tiny"}
        assert desk.run("pull", "tiny", HF_TOKEN="hf_member", HF_HUB_DISABLE_XET="0").returncode == 0
        assert other.log == []
