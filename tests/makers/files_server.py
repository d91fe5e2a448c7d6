"""A server of files over HTTP with the faults that servers have."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """What is served, and how.

    Attributes:
        content: of every address but those of ``redirects``.
        etag: None: none is sent.
        modified: the same.
        ranges: whether a part can be asked for.
        minds_if_range: whether ``If-Range`` is understood.
        says_length: whether ``Content-Length`` is sent.
        lies: bytes that ``Content-Length`` says too many.
        cuts: for each of the next answers, after how many bytes of its body it ends.
        statuses: the next answers, none of them a file.
        redirects: path to where it leads.
        requests: the header ``Range`` of every request for the file.
        slow: what the second half of a body waits for.
    """

    content: bytes
    etag: str | None = '"1"'
    modified: str | None = None
    ranges: bool = True
    minds_if_range: bool = True
    says_length: bool = True
    lies: int = 0
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    requests: list[str | None] = field(default_factory=list)
    slow: threading.Event | None = None
    endpoint: str = ""

    @property
    def url(self) -> str:
        return f"{self.endpoint}/images.zip"


@contextmanager
def serving(content: bytes, **faults) -> Iterator[Files]:
    files = Files(content, **faults)

    class Handler(_Handler):
        state = files

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    files.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Files

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        files = self.state
        if self.path in files.redirects:
            return self._answer(302, {"Location": files.redirects[self.path]})
        files.requests.append(self.headers.get("Range"))
        if files.statuses:
            return self._answer(files.statuses.pop(0), {})
        headers = {"ETag": files.etag, "Last-Modified": files.modified}
        body, status = files.content, 200
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (files.etag, files.modified)
        if asked and files.ranges and (same or not files.minds_if_range):
            start = int(asked[1])
            if start >= len(body):
                return self._answer(416, {"Content-Range": f"bytes */{len(body)}"})
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        if files.says_length:
            headers["Content-Length"] = str(len(body) + files.lies)
        return self._answer(status, headers, body)

    def _answer(self, status: int, headers: dict[str, str | None], body: bytes = b"") -> None:
        files = self.state
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if body and files.cuts:
            body = body[: files.cuts.pop(0)]
        half = len(body) // 2
        self.wfile.write(body[:half])
        if files.slow is not None:  # the rest comes when it is set
            self.wfile.flush()
            files.slow.wait(20)
        self.wfile.write(body[half:])
