"""The page on which people label components, and the server on this machine that gives it."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from spurbench.core.documents import Document, describe
from spurbench.core.errors import SpurbenchError
from spurbench.discovery.documents import ClassFound, Discovery, found_classes
from spurbench.discovery.supervise.labels import FILE, Labels, Mark, Verdict, agreements

if TYPE_CHECKING:
    from starlette.applications import Starlette

STATIC = Path(__file__).parent / "static"

HOSTS = ("127.0.0.1", "localhost")
"""Names that a browser on this machine knows it by. Another name may be a foreign page's, which
asked to be resolved to this machine in order to read from it."""

_PICTURE = re.compile(r"component_\d+/(top|heat|feature)_\w+\.jpg", re.ASCII)

Model = TypeVar("Model", bound=Document)


def app(folder: Path) -> Starlette:
    """The page of a discovery, whose labels are kept in its folder.

    Raises:
        SpurbenchError: if it is no discovery, or Starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.requests import Request
        from starlette.responses import FileResponse, JSONResponse, Response
        from starlette.routing import Mount, Route
        from starlette.staticfiles import StaticFiles
    except ImportError:
        raise SpurbenchError(
            "the page needs Starlette and uvicorn; pip install 'spurbench[serve]'"
        ) from None
    discovery = Discovery.read(folder)
    classes: dict[int, tuple[Path, ClassFound]] = {
        found.index: (path, found) for path, found in found_classes(folder)
    }
    folders = {path.name for path, _ in classes.values()}
    labels = Labels(folder / FILE)
    components = [
        {"index": found.index, "class": found.name, "component": component.number}
        for _, found in classes.values()
        for component in found.components
    ]

    def page(_: Request) -> Response:
        # Nothing from elsewhere, and no script but the page's own file.
        policy = {"Content-Security-Policy": "default-src 'self'; img-src 'self' data:"}
        return FileResponse(STATIC / "supervise.html", headers=policy)

    def listed(_: Request) -> Response:
        return JSONResponse({"classifier": discovery.classifier.name, "components": components})

    def component(request: Request) -> Response:
        path, found = classes.get(request.path_params["index"], (None, None))
        number = request.path_params["number"]
        if path is None or found is None or not 1 <= number <= len(found.components):
            return _refused("no such component", 404)
        shown = found.components[number - 1].model_dump()
        return JSONResponse({"folder": path.name, "images": found.images, **shown})

    def said(request: Request) -> Response:
        person = request.query_params.get("person", "")
        return JSONResponse(
            {
                "verdicts": [v.model_dump() for v in labels.verdicts() if v.person == person],
                "marks": [m.model_dump() for m in labels.marks() if m.person == person],
            }
        )

    def agreeing(_: Request) -> Response:
        return JSONResponse([asdict(agreement) for agreement in agreements(labels.verdicts())])

    def picture(request: Request) -> Response:
        name, of, file = (request.path_params[key] for key in ("folder", "component", "file"))
        path = folder / name / of / file
        if name in folders and _PICTURE.fullmatch(f"{of}/{file}") and path.is_file():
            return FileResponse(path)
        return _refused("no such picture", 404)

    def _refused(why: str, status: int = 400) -> Response:
        return JSONResponse({"error": why}, status)

    def kept(model: type[Model], keep: Callable[[Model], None]) -> Any:
        """An endpoint that takes a document and keeps it."""

        async def endpoint(request: Request) -> Response:
            # A foreign page's form can't say so without asking first, which gets no answer.
            if request.headers.get("content-type") != "application/json":
                return _refused("application/json is needed", 415)
            try:
                given: Any = model.model_validate_json(await request.body())
            except ValidationError as error:
                return _refused(describe(error))
            found = classes.get(given.index)
            number = getattr(given, "component", 1)
            if found is None or number > len(found[1].components):
                return _refused("no such component", 404)
            try:
                keep(given)
            except SpurbenchError as error:
                return _refused(str(error), 500)
            return JSONResponse({})

        return endpoint

    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/components", listed),
            Route("/api/component/{index:int}/{number:int}", component),
            Route("/api/labels", said),
            Route("/api/agreement", agreeing),
            Route("/api/verdict", kept(Verdict, labels.say), methods=["POST"]),
            Route("/api/mark", kept(Mark, labels.mark), methods=["POST"]),
            Route("/picture/{folder}/{component}/{file}", picture),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))],
    )


def serve(folder: Path, port: int, announce: Callable[[str], None]) -> None:
    """Give the page to browsers on this machine until an interruption.

    Args:
        folder: of the discovery.
        port: where; 0: any that is free.
        announce: takes the page's address once it can be opened.

    Raises:
        SpurbenchError: see :func:`app`; or if the port is taken.
    """
    application = app(folder)
    try:
        import uvicorn
    except ImportError:
        raise SpurbenchError("the page needs uvicorn; pip install 'spurbench[serve]'") from None
    try:
        taken = socket.create_server((HOSTS[0], port))
    except OSError as error:
        raise SpurbenchError(
            f"port {port} can't be had ({error.strerror}); name another with --port, or 0 for any"
        ) from None
    with taken:
        announce(f"http://{HOSTS[0]}:{taken.getsockname()[1]}/")
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning"))
        server.run(sockets=[taken])
