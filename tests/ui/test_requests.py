"""The page's server by its requests: who may ask, how much, with what errors, and how many drawings wait."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

import ditzoo
from ditzoo.cli import run
from ditzoo.pictures.png_metadata import read_request
from ditzoo.ui.app import LARGEST_BODY
from ditzoo.ui.guard import HEADERS, LARGEST_HEAD
from ditzoo.ui.jobs import KEPT, MOST_WAITING
from tests.support.page_server import JSON, PageServer, serving

LONG = {"steps": "250", "num": "64"}
"""A drawing that takes longer than any test."""


def test_only_this_machine_can_connect(page: PageServer) -> None:
    """127.0.0.2 is this machine too, but not the address that is served."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", page.port), timeout=10)


def test_a_name_that_another_site_made_point_here_is_refused(page: PageServer) -> None:
    assert page.get("/", Host=f"localhost:{page.port}").status == 200
    port = page.port
    for host in (f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", f"127.0.0.1.evil.example:{port}", ""):
        answer = page.get("/", Host=host)
        assert answer.status == 403, host
        assert f"http://127.0.0.1:{page.port}".encode() in answer.body


def test_another_site_cannot_ask(page: PageServer) -> None:
    own = {**JSON, "Origin": page.address}
    strange = ("http://[", "http://a]b", "http://\xff", f"{page.address}@evil.example", f"{page.address}/", "")
    others = ("http://evil.example", "null", f"https://127.0.0.1:{page.port}", f"http://127.0.0.1:{page.port + 1}")
    for origin in (*others, *strange):
        answer = page.request("POST", "/api/plan", b"{}", {**own, "Origin": origin})
        assert answer.status == 403, origin
        assert HEADERS.items() <= answer.headers.items()
    for site in ("cross-site", "same-site"):
        assert page.get("/api/choices", **{"Sec-Fetch-Site": site}).status == 403
        assert page.get("/", **{"Sec-Fetch-Site": site}).status == 200
    assert page.request("POST", "/api/plan", b"{}", own).status == 400
    simple = page.request("POST", "/api/plan", b"{}", {"Content-Type": "text/plain"})
    assert (simple.status, simple.json) == (415, {"error": "the body must be application/json"})


@pytest.mark.parametrize("path", ["/", "/page.js", "/nothing", "/api/choices", "/api/jobs/x/states", "/../pyproject.toml"])
def test_every_answer_has_the_headers_of_the_policy(page: PageServer, path: str) -> None:
    for host in (f"127.0.0.1:{page.port}", "evil.example"):
        answer = page.get(path, Host=host)
        assert HEADERS.items() <= answer.headers.items()
        assert "server" not in answer.headers
    assert "unsafe" not in HEADERS["content-security-policy"]


def test_the_page_holds_no_script_or_style_and_names_no_other_host() -> None:
    folder = Path(ditzoo.__file__).parent / "ui" / "page"
    html = (folder / "index.html").read_text()
    assert all(sign not in html for sign in ("<style", "style=", "onclick", "javascript:", "<script>"))
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert [found for text in texts.values() for found in re.findall(r"//\w[^\s\"]*", text)] == ["//www.w3.org/2000/svg"]
    assert not any("innerHTML" in text for text in texts.values())


def test_every_file_of_the_page_is_served(page: PageServer) -> None:
    for path in (Path(ditzoo.__file__).parent / "ui" / "page").iterdir():
        answer = page.get(f"/{path.name}" if path.name != "index.html" else "/")
        assert (answer.status, answer.body) == (200, path.read_bytes())


@pytest.mark.parametrize("number", ["9" * 4301, "9" * 8000, "9" * 19, "٣"])
def test_numbers_with_too_many_digits_are_refused(page: PageServer, number: str) -> None:
    job = page.post("/api/jobs", steps="1").json["id"]
    assert list(page.states(job))[-1]["phase"] == "finished"
    number = quote(number)
    for path in (f"previews/{number}", f"sheets/{number}", f"pictures/{number}/0", f"pictures/0/{number}"):
        answer = page.get(f"/api/jobs/{job}/{path}")
        assert answer.status == 404, path
        assert "whole number" in answer.json["error"]


def test_requests_that_end_too_early_are_no_errors() -> None:
    with serving() as server:
        head = f"POST /api/plan HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                connection.sendall(f'{head}Content-Length: 50\r\n\r\n{{"mo'.encode())
        assert server.post("/api/plan").status == 200
        assert server.interrupt() == (130, "stopped\n")


def test_large_requests_are_refused(page: PageServer) -> None:
    large = page.request("POST", "/api/plan", b" " * (LARGEST_BODY + 1), JSON)
    assert (large.status, large.json["error"]) == (413, f"the body has more than {LARGEST_BODY:,} bytes")
    assert page.get("/", Long="x" * LARGEST_HEAD).status == 431
    long = page.post("/api/plan", prompts="x" * 8_001)
    assert long.json["error"].startswith("the body is no form: prompts has more than 8,000 characters")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is no form: "),
        (b"[]", "the body is no form: Expected `object`"),
        (b'{"model": "dit-digits"}', "the body is no form: Object missing required field `backend`"),
        (b'{"model": "dit-digits", "backend": "torch", "plan": "x"}', "the body is no form: Object contains unknown field"),
        (b'{"model": "dit-digits", "backend": "torch", "steps": 3}', "the body is no form: Expected `str`, got `int`"),
        (b"[" * 10_000, "the body is no form: "),
    ],
)
def test_a_body_that_is_no_form_is_refused(page: PageServer, body: bytes, error: str) -> None:
    answer = page.request("POST", "/api/plan", body, JSON)
    assert answer.status == 400
    assert answer.json["error"].startswith(error)


@pytest.mark.parametrize("model", ["/etc", "..", "ditzoo/assets", "", "hf:OWNER/REPO"])
def test_no_path_and_no_repository_is_a_model(page: PageServer, model: str) -> None:
    answer = page.post("/api/plan", model=model)
    assert answer.status == 400
    assert answer.json["error"].startswith(("unknown model", "hf:OWNER/REPO is not on this machine"))


@pytest.mark.parametrize("backend", ["onnxruntime:cuda:trt_extra_plugin_lib_paths=/tmp/x.so", "onnxruntime:single", "", "x"])
def test_only_offered_backends_are_taken(page: PageServer, backend: str) -> None:
    assert page.post("/api/plan", backend=backend).json["error"].startswith("unknown backend")
    assert page.post("/api/plan", other=backend or "x").json["error"].startswith("unknown backend")


@pytest.mark.parametrize(
    ("form", "option"),
    [
        ({"steps": "0"}, "--steps"),
        ({"steps": "3000"}, "--steps"),
        ({"guidance": "nan"}, "--guidance"),
        ({"guidance_every": "0"}, "--guidance-every"),
        ({"seed": "-1"}, "--seed"),
        ({"num": "0"}, "--num"),
        ({"classes": "twelve"}, "--classes"),
        ({"classes": "<img src=x>"}, "--classes"),
        ({"solver": "nothing"}, "--solver"),
        ({"reuse": "every=2"}, "--reuse"),
        ({"reuse": "every=2,blocks=9"}, "--reuse"),
    ],
)
def test_errors_are_those_of_the_command_line(
    page: PageServer, form: dict[str, str], option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answer = page.post("/api/jobs", **form)
    (value,) = form.values()
    out = str(tmp_path / "x.png")
    typed = ["sample", "dit-digits", "--backend", "onnxruntime", "--out", out, f"{option}={value}"]
    assert run(typed) == 2
    error = capsys.readouterr().err.removeprefix("error: ").strip()
    assert answer.status == 400
    assert answer.json["error"] == error.replace("in --classes", "in classes")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"steps": "abc"}, "steps must be a whole number of steps, not 'abc'"),
        ({"steps": "2.5"}, "steps must be a whole number of steps, not '2.5'"),
        ({"steps": "1e3"}, "steps must be a whole number of steps, not '1e3'"),
        ({"guidance": "much"}, "guidance must be a finite number, not 'much'"),
        ({"guidance": "9" * 400}, f"guidance must be a finite number, not '{'9' * 60}...'"),
        ({"guidance_every": "1e1"}, "guidance_every must be a whole number of rows, not '1e1'"),
        ({"num": "1e400"}, "the number of images must be a whole number, 1 or more, not '1e400'"),
        ({"seed": "1.0"}, "seed must be a whole number, 0 to 18446744073709551615, not '1.0'"),
        ({"num": "65"}, "the number of images must be at most 64, not 65"),
        ({"classes": ",".join(["3"] * 65)}, "the number of images must be at most 64, not 65"),
        ({"num": "many"}, "the number of images must be a whole number, 1 or more, not 'many'"),
        ({"seed": "99999999999999999999"}, "seed must be 0 to 18446744073709551615, not 99999999999999999999"),
        ({"prompts": "a dog"}, "dit-digits takes no prompts; choose classes (--classes)"),
    ],
)
def test_wrong_numbers_are_named(page: PageServer, form: dict[str, str], error: str) -> None:
    answer = page.post("/api/plan", **form)
    assert (answer.status, answer.json) == (400, {"error": error})


def test_a_plan_is_shown_without_drawing(page: PageServer) -> None:
    shown = page.post("/api/plan", steps="4", classes="3, seven", reuse="every=2,blocks=1", seed="7").json
    plan = ditzoo.make_plan("dit-digits", steps=4, reuse="every=2,blocks=1")
    assert ditzoo.Plan.from_json(json.dumps(shown["plan"])) == plan
    assert shown["images"] == 2
    assert shown["command"] == (
        "ditzoo sample dit-digits --backend onnxruntime --classes '3, seven' --steps 4 --reuse every=2,blocks=1 --seed 7"
    )


def test_a_drawing_is_that_of_the_command_line(page: PageServer, tmp_path: Path) -> None:
    typed = ["dit-digits", "--backend", "onnxruntime", "--steps", "3", "--classes", "3,seven", "--seed", "18446744073709551615"]
    assert run(["sample", *typed, "--out", str(tmp_path / "there.png")]) == 0
    assert run(["sample", *typed, "--out", str(tmp_path / "single")]) == 0
    form = {"steps": "3", "classes": "3,seven", "seed": "18446744073709551615"}
    order = page.post("/api/jobs", **form)
    assert order.status == 202
    states = list(page.states(order.json["id"]))
    assert states[-1]["phase"] == "finished", states[-1]
    assert (states[-1]["done"], states[-1]["total"]) == (3, 3)
    assert states[-1]["summary"]["labels"] == ["3", "7"]
    path = f"/api/jobs/{order.json['id']}"
    assert page.get(f"{path}/previews/0").headers["content-type"] == "image/png"
    for there, here in (("there.png", "sheets/0"), ("single/0001-class7.png", "pictures/0/1")):
        (tmp_path / "here.png").write_bytes(page.get(f"{path}/{here}").body)
        assert read_request(tmp_path / "here.png") == read_request(tmp_path / there)
        with Image.open(tmp_path / "here.png") as ours, Image.open(tmp_path / there) as theirs:
            assert ours.tobytes() == theirs.tobytes()
    for missing in ("sheets/1", "pictures/0/2", "pictures/1/0", "differences/0", "previews/1", "sheets/-1", "sheets/x"):
        assert page.get(f"{path}/{missing}").status == 404


def test_a_sheet_has_the_names_of_the_classes(page: PageServer, tmp_path: Path) -> None:
    typed = ["dit-icons", "--backend", "onnxruntime", "--steps", "2", "--classes", "0,3"]
    assert run(["sample", *typed, "--out", str(tmp_path / "there.png")]) == 0
    job = page.post("/api/jobs", model="dit-icons", steps="2", classes="0,3").json["id"]
    assert list(page.states(job))[-1]["phase"] == "finished"
    (tmp_path / "here.png").write_bytes(page.get(f"/api/jobs/{job}/sheets/0").body)
    with Image.open(tmp_path / "here.png") as ours, Image.open(tmp_path / "there.png") as theirs:
        assert ours.height > 32  # the names stand above the pictures
        assert ours.tobytes() == theirs.tobytes()


def test_the_queue_is_bounded_and_every_drawing_can_be_cancelled(page: PageServer) -> None:
    running = page.post("/api/jobs", **LONG).json["id"]
    assert next(state for state in page.states(running) if state["done"])["phase"] == "running"
    waiting = [page.post("/api/jobs", **LONG).json["id"] for _ in range(MOST_WAITING)]
    refused = page.post("/api/jobs", **LONG)
    assert refused.status == 503
    assert refused.json == {"error": "8 drawings wait already; wait until one is finished, or cancel one"}
    assert next(page.states(waiting[-1]))["ahead"] == MOST_WAITING
    assert page.get(f"/api/jobs/{running}/sheets/0").status == 404
    for job in (*waiting, running):
        assert page.request("DELETE", f"/api/jobs/{job}").status == 204
    assert list(page.states(running))[-1]["phase"] == "cancelled"
    kept = [job for job in (*waiting, running) if page.get(f"/api/jobs/{job}/states").status == 200]
    assert len(kept) == KEPT
    assert page.request("DELETE", "/api/jobs/unknown").status == 404


def test_ctrl_c_ends_the_page_and_its_work() -> None:
    with serving() as server:
        job = server.post("/api/jobs", **LONG).json["id"]
        states = server.states(job)
        assert next(states)["phase"] in ("waiting", "running")
        status, error = server.interrupt()
        assert all(state["phase"] != "finished" for state in states)
    assert (status, error) == (130, "stopped\n")


@pytest.mark.parametrize("port", ["taken", "70000", "-1"])
def test_a_port_that_cannot_be_used(page: PageServer, port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ui", f"--port={page.port if port == 'taken' else port}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --port")
    assert ("--port 0 takes a free one" in error) == (port == "taken")
