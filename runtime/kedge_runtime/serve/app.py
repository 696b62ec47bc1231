"""Join the routes: the page, the live image, unsure images, and the interface for programs."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from kedge_runtime.errors import ImageError, UsageError
from kedge_runtime.exits import report_bug
from kedge_runtime.serve.access import LOGIN, AccessRules, Guard, refusal
from kedge_runtime.serve.labelling import UnsureLabelling, folder_name
from kedge_runtime.serve.metrics import Requests
from kedge_runtime.serve.openapi import description
from kedge_runtime.serve.uploads import Uploads
from kedge_runtime.serve.view import View

PAGE = {
    "index.html": "text/html; charset=utf-8",
    "login.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "login.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
VIEWERS = 8  # of the live image at once
PAUSE = 0.1  # seconds between two frames of it, at least
STILL = 5.0  # seconds after which an unchanged frame is sent again
SHOWN = 24  # unsure images on the page
MAX_LABEL = 4096  # bytes of a request that labels an image

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Service:
    """What the app serves. `name`: the source's; `labelling`: None without a folder for unsure."""

    name: str
    artefacts: Sequence[str]
    view: View
    uploads: Uploads
    registry: CollectorRegistry
    labelling: UnsureLabelling | None
    access: AccessRules


def app_of(service: Service) -> ASGIApp:
    """Return the app with its guard before it."""
    routes = [*_page_routes(service), *_live_routes(service), *_program_routes(service)]
    if service.labelling:
        routes += _unsure_routes(service.labelling)
    app = Starlette(routes=_timed(routes, Requests(service.registry)))
    app.add_exception_handler(HTTPException, _refused)
    return Guard(app, service.access)


async def _refused(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 500
    return refusal(code, str(getattr(error, "detail", error)))


def _timed(routes: list[Route], requests: Requests) -> list[BaseRoute]:
    """Return the routes with each request noted, but for the endless image."""

    def noting(route: Route) -> Route:
        async def endpoint(request: Request) -> Response:
            began, status = time.monotonic(), 500
            try:
                answer = await _answered(route, request)
                status = answer.status_code
                return answer
            finally:
                requests.note(route.path, status, time.monotonic() - began)

        return Route(route.path, endpoint, methods=[*(route.methods or ())])

    return [noting(route) for route in routes]


async def _answered(route: Route, request: Request) -> Response:
    try:
        answer: Response = await route.endpoint(request)
    except ClientDisconnect:
        return refusal(400, "the body ended early")
    except Exception as error:  # a bug is one line in the log, and the server goes on
        report_bug(error)
        return refusal(500, "internal error; the log of kedge has its reason")
    return answer


def _page_routes(service: Service) -> list[Route]:
    folder = files("kedge_runtime.serve") / "page"

    def static(name: str) -> Endpoint:
        content = (folder / name).read_bytes()

        async def endpoint(request: Request) -> Response:
            return Response(content, headers={"Content-Type": PAGE[name]})

        return endpoint

    login = static("login.html") if service.access.token else _to_page
    return [
        Route("/", static("index.html")),
        Route(LOGIN, login),
        *(Route(f"/{name}", static(name)) for name in PAGE if not name.endswith(".html")),
    ]


async def _to_page(request: Request) -> Response:
    return RedirectResponse("/", 303)


def _live_routes(service: Service) -> list[Route]:
    view, viewers = service.view, [0]

    async def state(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if not after.isascii() or not after.isdecimal():
            return refusal(400, "after: expected a number")
        shown = view.state(int(after[:18]))
        about = {"schema": 1, "source": service.name, "artefacts": list(service.artefacts)}
        return JSONResponse(about | shown | {"unsure": service.labelling is not None})

    async def newest(request: Request) -> Response:
        content = await run_in_threadpool(view.jpeg)
        return Response(content, media_type="image/jpeg") if content else refusal(404, "no frame")

    async def stream() -> AsyncIterator[bytes]:
        viewers[0] += 1
        try:
            async for part in _parts(view):
                yield part
        finally:
            viewers[0] -= 1

    async def live(request: Request) -> Response:
        if viewers[0] >= VIEWERS:
            return refusal(503, f"{VIEWERS} others look on already", **{"Retry-After": "10"})
        return StreamingResponse(stream(), media_type="multipart/x-mixed-replace; boundary=frame")

    return [Route("/v1/state", state), Route("/live.jpg", newest), Route("/live.mjpg", live)]


async def _parts(view: View) -> AsyncIterator[bytes]:
    """Yield each new frame as a part of MJPEG, at most ten a second, until the server ends."""
    shown, since = None, 0.0
    while not view.stopped:
        if view.frame is not shown or time.monotonic() - since > STILL:
            shown, since = view.frame, time.monotonic()
            if content := await run_in_threadpool(view.jpeg):
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
                yield b"--frame\r\n" + head.encode() + content + b"\r\n"
        await asyncio.sleep(PAUSE)


def _program_routes(service: Service) -> list[Route]:
    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "source": not service.view.lost})

    async def metrics(request: Request) -> Response:
        text = await run_in_threadpool(generate_latest, service.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(request: Request) -> Response:
        return JSONResponse(description())

    async def classify(request: Request) -> Response:
        return await service.uploads(request)

    return [
        Route("/v1/classify", classify, methods=["POST"]),
        Route("/healthz", health),
        Route("/metrics", metrics),
        Route("/openapi.json", openapi),
    ]


def _unsure_routes(labelling: UnsureLabelling) -> list[Route]:
    classes = [
        {"id": label.id, "name": label.name, "folder": folder_name(label)}
        for label in labelling.labels
    ]

    async def listed(request: Request) -> Response:
        names, count = await run_in_threadpool(lambda: (labelling.images(SHOWN), labelling.count()))
        return JSONResponse({"schema": 1, "images": names, "count": count, "classes": classes})

    async def image(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            if request.method == "DELETE":
                await run_in_threadpool(labelling.discard, name)
                return Response(status_code=204)
            content = await run_in_threadpool(labelling.read, name)
            return Response(content, media_type="image/jpeg")
        except ImageError as error:
            return refusal(404, str(error))

    async def label(request: Request) -> Response:
        try:
            chosen = await _chosen(request)
            name = request.path_params["name"]
            path = await run_in_threadpool(labelling.label, name, chosen)
        except ImageError as error:
            return refusal(404, str(error))
        except UsageError as error:
            return refusal(400, str(error))
        return JSONResponse({"schema": 1, "folder": path.parent.name, "name": path.name})

    return [
        Route("/v1/unsure", listed),
        Route("/v1/unsure/{name}", image, methods=["GET", "DELETE"]),
        Route("/v1/unsure/{name}/label", label, methods=["POST"]),
    ]


async def _chosen(request: Request) -> str:
    """Return the label's id in a body such as {"label": "n01440764"}. Raises UsageError."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_LABEL:
            raise UsageError("the body is too long")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    label = value.get("label") if isinstance(value, dict) else None
    if not isinstance(label, str):
        raise UsageError('expected {"label": ID}')
    return label
