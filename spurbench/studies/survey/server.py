"""The survey's server: a page for each link, and the answers that it sends.

It sets no cookie, so there is none that another site's request could carry: the link is all that a
rater has. It logs no request.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import socket
import sqlite3
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from spurbench.core.errors import SpurbenchError
from spurbench.studies.survey import pages
from spurbench.studies.survey.design import IMAGES, PAGES, Survey, read_tokens
from spurbench.studies.survey.store import FILE, Answer, Committer, Store

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024
"""Bytes; the page sends 200 answers at a time, which are less than a fifth of it."""

HEADERS = {
    "Content-Security-Policy": pages.SERVED_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The address is the rater's key: it goes to no other site. (No "no-referrer": with it some
    # browsers name no origin when they post.)
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
"""Of every response, errors too."""

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def application(folder: Path) -> Starlette:
    """The survey in a folder, as an ASGI application.

    Raises:
        SpurbenchError: if it is no survey, its answers can't be written, or the extra is missing.
    """
    require_extra()
    from starlette.applications import Starlette
    from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
    from starlette.routing import Route

    survey = Survey.read(folder)
    tokens = read_tokens(folder, survey)
    store = Store(folder / FILE, survey.id)
    committer = Committer(store)
    images = {f"{i.image}.jpg": folder / PAGES / IMAGES / f"{i.image}.jpg" for i in survey.items}
    several = TypeAdapter(list[Answer])

    async def front(request: Request) -> Response:
        return HTMLResponse(pages.front())

    async def page(request: Request) -> Response:
        token = request.path_params["token"]
        if (rater := tokens.get(token)) is None:
            return HTMLResponse(pages.front(), 404)
        answers = await asyncio.to_thread(store.of, rater)
        send = f"{token}/answers"
        text = pages.page(survey, rater, token, root="../", send=send, answers=answers)
        return HTMLResponse(text, headers={"Cache-Control": "no-store"})

    async def answer(request: Request) -> Response:
        if (rater := tokens.get(request.path_params["token"])) is None:
            return PlainTextResponse("no such link", 404)
        if not of_this_origin(request.headers):
            return PlainTextResponse("from another site", 403)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return PlainTextResponse("not JSON", 415)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_BODY:
                return PlainTextResponse("too much at once", 413)
        try:
            answers = several.validate_json(body)
        except ValidationError:
            return PlainTextResponse("not answers", 400)
        if any(a.position >= len(survey.orders[rater]) for a in answers):
            return PlainTextResponse("no such position", 400)
        try:
            saved = await committer.save(rater, answers)
        except sqlite3.Error as error:
            log.error("answers were not saved, and their sender knows: %s", error)
            return PlainTextResponse("not saved, try again", 503)
        return JSONResponse([a.model_dump() for a in saved], headers={"Cache-Control": "no-store"})

    async def image(request: Request) -> Response:
        if (path := images.get(request.path_params["name"])) is None:
            return PlainTextResponse("no such image", 404)
        kept = {"Cache-Control": "private, max-age=86400, immutable"}
        return FileResponse(path, media_type="image/jpeg", headers=kept)

    def part(name: str) -> Callable[[Request], Any]:
        async def send(request: Request) -> Response:
            return PlainTextResponse(
                pages.part(name),
                media_type=_TYPES[Path(name).suffix],
                headers={"Cache-Control": "no-cache"},
            )

        return send

    routes = [
        Route("/", front),
        Route("/r/{token}", page),
        Route("/r/{token}/answers", answer, methods=["POST"]),
        Route(f"/{IMAGES}/{{name}}", image),
        *(Route(f"/{name}", part(name)) for name in pages.PARTS),
    ]
    made = Starlette(routes=routes)
    made.add_middleware(_WithHeaders)
    return made


def of_this_origin(headers: Any) -> bool:
    """Whether a request comes from a page of the host that it goes to, as browsers tell.

    Every browser names the origin of what is posted; whatever does not is refused.

    Args:
        headers: of the request, by lower-case name.
    """
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = urlsplit(headers.get("origin", ""))
    # The host alone: behind a proxy that speaks TLS the scheme here is another.
    return origin.scheme in ("http", "https") and origin.netloc == headers.get("host")


def serve(folder: Path, host: str, port: int, ready: Callable[[str, int], None]) -> None:
    """Serve a survey until interrupted.

    Args:
        folder: of the survey.
        host: address to listen at.
        port: likewise; 0 takes one that is free.
        ready: called with the server's address and the number of raters before the first request.

    Raises:
        SpurbenchError: as :func:`application`; or if nothing can listen there.
    """
    made = application(folder)
    import uvicorn

    try:
        listener = socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise SpurbenchError(
            f"can't listen at {host}, port {port}: {error.strerror}; name another --port or --host"
        ) from None
    ready(f"http://{host}:{listener.getsockname()[1]}", len(Survey.read(folder).orders))
    config = uvicorn.Config(
        made,
        access_log=False,  # it would hold addresses and links
        log_level="warning",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listener])


def require_extra() -> None:
    """Refuse to go on without the packages of the extra.

    Raises:
        SpurbenchError: if they are not installed.
    """
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise SpurbenchError(
            "the survey's server is not installed; pip install 'spurbench[serve]', or send raters "
            f"the pages in {PAGES}, which need none"
        )


class _WithHeaders:
    """Adds :data:`HEADERS` to every response."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, with_headers)
