"""A server that lies: nothing outside the caches is written, followed or deleted, whatever it says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save

from recipes.checkpoints import hub_server
from tests.support.hub_models import FILE, TINY, Desk, diffusers, state

PUBLISHED = diffusers(state(TINY), TINY)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with hub_server.serving() as hub:
        (tmp_path / "home").mkdir()
        (tmp_path / "victim").write_text("precious")
        desk = Desk(tmp_path / "home", hub)
        desk.offers(PUBLISHED)
        yield desk


def outside(desk: Desk) -> dict[str, str]:
    """What lies beside the user's machine; a lie may change none of it."""
    return {path.name: path.read_text() for path in desk.home.parent.iterdir() if path != desk.home}


@pytest.mark.parametrize(
    ("header", "tag", "honest"),
    [
        ("ETag", "{}/written", 0),
        ("ETag", '"{}/written"', 2),
        ("X-Linked-Etag", '"../../../../../written"', 2),
        ("ETag", 'W/".."', 1),
        ("ETag", '"a/b"', 0),
        ("ETag", '""', 2),
    ],
)
def test_a_tag_that_is_a_path(desk: Desk, header: str, tag: str, honest: int) -> None:
    """Answers may be true at first: the Hub's client asks by itself after ditzoo has asked twice."""
    desk.hub.faults.lies, desk.hub.faults.honest = {header: tag.format(desk.home.parent)}, honest
    assert "not a plain name" in desk.fails("pull", "tiny")
    assert outside(desk) == {"victim": "precious"}
    assert not list(desk.home.rglob("written*"))


@pytest.mark.parametrize("commit", ["../../../../../written", "main", "A" * 40, "0" * 39])
def test_a_commit_that_is_none(desk: Desk, commit: str) -> None:
    desk.hub.faults.lies = {"X-Repo-Commit": commit}
    assert "commit that is not valid" in desk.fails("pull", "tiny")
    desk.hub.faults.lies, desk.hub.faults.false_sha = {}, commit
    assert "commit that is not valid" in desk.fails("pull", "hf:team/tiny", "--like", "tiny")
    assert outside(desk) == {"victim": "precious"}


def test_a_commit_that_is_none_of_a_file_that_is_none(desk: Desk) -> None:
    """The Hub's client makes a file called like the commit to remember that there is none."""
    desk.hub.commit("team/tiny", {"other": b""})
    desk.hub.faults.lies = {"X-Repo-Commit": "../../../../../written"}
    assert "commit that is not valid" in desk.fails("pull", "tiny")
    assert outside(desk) == {"victim": "precious"}


def test_tags_of_other_servers_are_taken(desk: Desk) -> None:
    desk.hub.faults.lies = {"ETag": 'W/"0123abcd-17"'}
    assert desk.run("pull", "tiny").returncode == 0


def test_the_token_stays_with_the_server(desk: Desk) -> None:
    """A redirect to another server, and headers of Xet that name one."""
    with hub_server.serving() as other:
        other.repos = desk.hub.repos
        desk.hub.faults.lies = {
            "X-Xet-Hash": "0" * 64,
            "X-Xet-Refresh-Route": f"{other.url}/token",
            "Link": f'<{other.url}/token>; rel="xet-auth"',
        }
        desk.hub.faults.elsewhere = other.url
        assert desk.run("pull", "tiny", HF_TOKEN="hf_member", HF_HUB_DISABLE_XET="0").returncode == 0
        assert "Bearer hf_member" in desk.hub.tokens
        assert (other.downloads(), len(other.log), other.tokens) == (1, 1, [])


def test_more_bytes_than_were_announced_are_not_kept(desk: Desk) -> None:
    desk.hub.faults.lies = {"X-Linked-Size": "1000"}
    assert "more than 1,000 bytes" in desk.fails("pull", "tiny", "--timeout", "1")
    assert sum(path.stat().st_size for path in desk.home.rglob("*.incomplete")) <= 1000


def test_another_part_of_the_file_than_was_asked_for(desk: Desk) -> None:
    assert desk.run("pull", "tiny").returncode == 0
    (blob,) = (desk.home / "hf" / "hub").glob("models--*/blobs/*")
    whole = blob.read_bytes()
    blob.rename(blob.with_name(f"{blob.name}.ditzoo.incomplete")).write_bytes(whole[:1000])
    shutil.rmtree(desk.home / "ditzoo" / "weights")
    desk.hub.faults.lies = {"Content-Range": f"bytes 7-{len(whole) - 1}/{len(whole)}"}
    assert desk.run("pull", "tiny", "--timeout", "2").returncode == 2
    desk.hub.faults.lies = {}
    assert desk.run("pull", "tiny").returncode == 0
    assert blob.read_bytes() == whole


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_removing_follows_no_link_out_of_the_cache(desk: Desk, linked: str) -> None:
    commit = desk.offers(PUBLISHED)
    desk.describes(revision=commit)
    assert desk.run("pull", "tiny").returncode == 0
    (snapshot,) = (desk.home / "hf" / "hub").glob("models--*/snapshots/*")
    file = snapshot / FILE
    if linked == "file":
        file.unlink()
        file.symlink_to(desk.home.parent / "victim")
    else:
        file.unlink()
        file.parent.rmdir()
        desk.home.parent.joinpath("folder").mkdir()
        desk.home.parent.joinpath("folder", file.name).write_bytes(save(PUBLISHED))
        file.parent.symlink_to(desk.home.parent / "folder")
    assert "outside the Hub's cache" in desk.run("cache", "verify").stdout
    if linked == "file":
        assert desk.run("cache", "rm", "tiny", "--yes").returncode == 0
        assert not file.is_symlink()
    else:
        assert desk.run("cache", "rm", "tiny", "--yes").returncode == 2
        assert file.is_file()
    assert (desk.home.parent / "victim").read_text() == "precious"
