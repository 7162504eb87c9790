"""The application of the page: its files, the choices, and the jobs. docs/howto/ui.md describes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from ditzoo.errors import DitzooError, is_whole_number
from ditzoo.files import file_name
from ditzoo.pictures.decode import Pictures
from ditzoo.pictures.png_metadata import png_info
from ditzoo.pictures.sheets import png_bytes, to_image
from ditzoo.pictures.writers import sheet_of
from ditzoo.records import from_json, to_json
from ditzoo.ui.choices import choices
from ditzoo.ui.jobs import Job, Jobs, QueueFullError
from ditzoo.ui.orders import Form, Order, read_form
from ditzoo.ui.states import Drawn
from ditzoo.zoo.class_names import captions

LARGEST_BODY = 64 * 1024
"""The largest body of a request in bytes."""

FILES = Path(__file__).parent / "page"

_LOOKING = 0.1
"""The seconds between two looks at the state of a job, which is sent if it has changed."""

_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def make_app(jobs: Jobs) -> Starlette:
    """The application on a queue of jobs."""
    app = Starlette(
        routes=[
            Route("/", _file("index.html")),
            *(Route(f"/{path.name}", _file(path.name)) for path in FILES.iterdir() if path.suffix in _KINDS),
            Route("/api/choices", _choices),
            Route("/api/plan", _plan, methods=["POST"]),
            Route("/api/jobs", _submit, methods=["POST"]),
            Route("/api/jobs/{id}", _cancel, methods=["DELETE"]),
            Route("/api/jobs/{id}/states", _states),
            Route("/api/jobs/{id}/previews/{side}", _preview),
            Route("/api/jobs/{id}/sheets/{side}", _sheet),
            Route("/api/jobs/{id}/pictures/{side}/{image}", _picture),
            Route("/api/jobs/{id}/differences/{image}", _difference),
        ],
        exception_handlers={
            DitzooError: _refused,
            QueueFullError: _full,
            HTTPException: _failed,
            ClientDisconnect: _gone,
        },
    )
    app.state.jobs = jobs
    return app


def _file(name: str) -> Callable[[Request], Response]:
    def send(request: Request) -> Response:
        return FileResponse(FILES / name, media_type=_KINDS[Path(name).suffix])

    return send


def _refused(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, status=400)


def _full(request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, status=503)


def _failed(request: Request, error: Exception) -> Response:
    status, text = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, str(error))
    return _json({"error": text}, status=status)


def _gone(request: Request, error: Exception) -> Response:
    """The answer to a request that ended too early. Nobody reads it."""
    return Response(status_code=400)


def _json(value: object, *, status: int = 200) -> Response:
    return Response(to_json(value), status_code=status, media_type="application/json")


def _png(content: bytes) -> Response:
    return Response(content, media_type="image/png")


async def _choices(request: Request) -> Response:
    return _json(await run_in_threadpool(choices))


async def _plan(request: Request) -> Response:
    """The plan of a form, and the command that draws the same. Nothing is drawn."""
    return _json(_shown(await _order(request)))


async def _submit(request: Request) -> Response:
    order = await _order(request)
    job = _jobs(request).submit(order)
    name = file_name(f"{order.card.name}-seed{order.request.seed}")
    return _json({"id": job.id, "file": name, **_shown(order)}, status=202)


def _shown(order: Order) -> dict[str, object]:
    plan = order.request.plan
    return {"plan": plan, "evaluations": plan.evaluations, "images": order.request.count, "command": order.command}


async def _cancel(request: Request) -> Response:
    _jobs(request).cancel(_job(request))
    return Response(status_code=204)


async def _order(request: Request) -> Order:
    """The order of the form in the body. Raises HTTPException for a body that is too large or no form."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "the body must be application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"the body has more than {LARGEST_BODY:,} bytes")
    try:
        form = from_json(bytes(body), Form)
    except ValueError as error:
        raise HTTPException(400, f"the body is no form: {error}") from error
    return await run_in_threadpool(read_form, form)


async def _states(request: Request) -> Response:
    """Every state of a job as it changes, as server-sent events. The last one is final."""
    return StreamingResponse(_events(_jobs(request), _job(request)), media_type="text/event-stream")


async def _events(jobs: Jobs, job: Job) -> AsyncIterator[bytes]:
    sent = None
    while True:
        shown = job.state, jobs.ahead(job)
        if shown != sent:
            state, ahead = sent = shown
            yield b"data: " + msgspec.json.encode({**msgspec.to_builtins(state), "ahead": ahead}) + b"\n\n"
        if shown[0].final or jobs.stopping:
            return
        await asyncio.sleep(_LOOKING)


def _preview(request: Request) -> Response:
    picture = _job(request).previews.get(_number(request, "side"))
    if picture is None:
        raise HTTPException(404, "there is no preview yet")
    return _png(picture)


def _sheet(request: Request) -> Response:
    """All pictures of a backend on a sheet, with the request inside the file."""
    job = _job(request)
    pictures, drawn = _at(_drawn(job).pictures, _number(request, "side")), job.order.request
    names = captions(job.order.card, drawn.classes or ())
    return _png(png_bytes(sheet_of(pictures, names), info=png_info(drawn)))


def _picture(request: Request) -> Response:
    """One picture of a backend, with the request for it inside the file."""
    job, image = _job(request), _number(request, "image")
    pictures = _at(_drawn(job).pictures, _number(request, "side"))
    return _png(png_bytes(to_image(_at(pictures, image)), info=png_info(job.order.request.only(image))))


def _difference(request: Request) -> Response:
    """The difference of one picture on two backends, amplified."""
    difference = _drawn(_job(request)).difference
    if difference is None:
        raise HTTPException(404, "there is only one backend")
    return _png(png_bytes(to_image(_at(difference.pictures, _number(request, "image")))))


def _number(request: Request, name: str) -> int:
    """A number in the path of a request. Raises HTTPException if it is none, or if it has too many digits."""
    text: str = request.path_params[name]
    if not is_whole_number(text):
        raise HTTPException(404, f"{name} must be a whole number")
    return int(text)


def _at(items: tuple[Pictures, ...] | Pictures, index: int) -> Pictures:
    if index >= len(items):
        raise HTTPException(404, f"there are only {len(items)}")
    found: Pictures = items[index]
    return found


def _drawn(job: Job) -> Drawn:
    if job.drawn is None:
        raise HTTPException(404, "this drawing is not finished")
    return job.drawn


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def _job(request: Request) -> Job:
    job = _jobs(request).find(request.path_params["id"])
    if job is None:
        raise HTTPException(404, "there is no such drawing, or it is no longer kept; draw it again")
    return job
