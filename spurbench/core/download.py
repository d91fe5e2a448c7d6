"""Large files over HTTP, gone on with after a cut or a kill, and never mixed of two versions."""

from __future__ import annotations

import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from spurbench.core import atomic
from spurbench.core.documents import Document, read_json, validated
from spurbench.core.errors import SpurbenchError, reason

PATIENCE = 30.0
"""Seconds to wait for the next bytes."""

TRIES = 5
"""Tries in a row that bring nothing new, after which it is given up."""

PAUSE = 0.5
"""Seconds before the next try, doubled with each that brings nothing new."""

BLOCK = 1 << 16

_LATER = {408, 425, 429, 500, 502, 503, 504}
"""What servers answer that may answer otherwise in a moment."""


class _Cut(Exception):  # noqa: N818 - not an error yet: the next try may go on
    """A try ended before the file did."""


class _State(Document):
    """Which file a part is of: what the server said when its first byte came."""

    url: str
    etag: str | None
    modified: str | None
    length: int | None

    @property
    def validator(self) -> str | None:
        """What tells one version of the file from another, byte for byte (RFC 9110, 13.1.5)."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        return strong or self.modified


def download(url: str, target: Path, *, limit: int, room: float = 1.0) -> None:
    """Download a file; the same call goes on where an earlier one was cut or killed.

    What an earlier call left is gone on with only if the server says that the file is still the
    same; else, and where a server can't send the rest alone, it starts over. What is whole already
    is not asked for again.

    Args:
        url: http or https.
        target: where it goes, whole or not; ``NAME.json`` beside it says of which file it is.
            :func:`discard` removes both.
        limit: bytes that it may have.
        room: how many times its length must be free on the disk, for what is done with it next.

    Raises:
        SpurbenchError: if the address is wrong, the server refuses or breaks off again and again,
            the file is too large, or there is no room for it.
    """
    part = _Part(target, url)
    furthest, fruitless = part.size, 0
    with tqdm(desc=target.name, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        while not part.is_whole:
            try:
                _go_on(part, bar, limit, room)
                break
            except _Cut as cut:
                fruitless = 0 if part.size > furthest else fruitless + 1
                furthest = max(furthest, part.size)
                if fruitless == TRIES:
                    raise SpurbenchError(
                        f"{url} can't be had ({cut}); the same command goes on from "
                        f"{_mb(part.size)}"
                    ) from None
                time.sleep(PAUSE * 2**fruitless)


def discard(target: Path) -> None:
    """Remove what :func:`download` put there, if anything."""
    target.unlink(missing_ok=True)
    _about(target).unlink(missing_ok=True)


def _about(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


class _Part:
    """What arrived so far, and of which file it is."""

    def __init__(self, target: Path, url: str) -> None:
        self.url = url
        self.file = target
        self.state: _State | None = None
        with suppress(FileNotFoundError, SpurbenchError):
            self.state = validated(_State, read_json(_about(target)), "state")
        if self.validator is None:
            self.clear()

    @property
    def validator(self) -> str | None:
        """By which the server can tell whether what arrived is of its file; None: start over."""
        state = self.state
        if state is None or state.url != self.url or state.length is None:
            return None
        return state.validator if self.size <= state.length else None

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    @property
    def is_whole(self) -> bool:
        return self.state is not None and self.file.is_file() and self.size == self.state.length

    def start(self, state: _State) -> None:
        self.clear()
        atomic.write_json(_about(self.file), state.model_dump())
        self.state = state

    def clear(self) -> None:
        discard(self.file)
        self.state = None


def _go_on(part: _Part, bar: Any, limit: int, room: float) -> None:
    """One request: the rest of the file, or all of it."""
    headers = {"User-Agent": "spurbench", "Accept-Encoding": "identity"}
    if part.size and part.validator:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.validator}
    with _opened(part, headers) as response:
        if response.status == 206:
            _require_same(response, part)
        elif response.status == 200:
            part.start(_state(part.url, response))
        else:
            raise SpurbenchError(f"{part.url} answers {response.status}, and no file")
        length = part.state.length if part.state else None
        _require_room(part, length, limit, room)
        bar.reset(length)
        bar.update(part.size)
        with atomic.explained(part.file), part.file.open("ab", buffering=0) as file:
            for block in _blocks(response):
                file.write(block)
                bar.update(len(block))
                if file.tell() > limit:
                    part.clear()
                    raise SpurbenchError(f"{part.url} sends more than {_mb(limit)}; refused")
    if length is not None and part.size != length:
        raise _Cut(f"{_mb(part.size)} of {_mb(length)} arrived")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Goes where a server sends it, but never from https to what anyone on the way can change."""

    def redirect_request(
        self, request: Any, file: Any, code: int, message: str, headers: Any, address: str
    ) -> urllib.request.Request | None:
        if urlsplit(address).scheme not in ("https", request.type):
            raise SpurbenchError(f"{request.full_url} leads to {address}, which is not https")
        return super().redirect_request(request, file, code, message, headers, address)


def _opened(part: _Part, headers: dict[str, str]) -> Any:
    try:
        if urlsplit(part.url).scheme not in ("http", "https") or not urlsplit(part.url).hostname:
            raise ValueError("it begins with neither http://HOST nor https://HOST")
        request = urllib.request.Request(part.url, headers=headers)
        return urllib.request.build_opener(_Redirects).open(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        said = f"the server answers {error.code} {error.reason}"
        if error.code == 416:  # there is no such rest: what is here is of another file
            part.clear()
        elif error.code not in _LATER:
            raise SpurbenchError(f"{part.url} can't be had: {said}; check the address") from None
        raise _Cut(said) from None
    except (http.client.InvalidURL, ValueError) as error:
        raise SpurbenchError(f"{part.url[:200]} is no address: {reason(error)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(str(getattr(error, "reason", "")) or reason(error)) from None


def _blocks(response: Any) -> Iterator[bytes]:
    # read1: what has arrived is written at once, not held until a block is full.
    try:
        while block := response.read1(BLOCK):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(reason(error)) from None


def _state(url: str, response: Any) -> _State:
    length = response.headers.get("Content-Length", "")
    return _State(
        url=url,
        etag=response.headers.get("ETag"),
        modified=response.headers.get("Last-Modified"),
        length=int(length) if re.fullmatch("[0-9]{1,18}", length) else None,
    )


def _require_same(response: Any, part: _Part) -> None:
    """Start over unless this is the rest of the same file; not all servers mind ``If-Range``."""
    state = part.state
    span = re.fullmatch(
        r"bytes ([0-9]+)-[0-9]+/([0-9]+)", response.headers.get("Content-Range", "")
    )
    if (
        state is None
        or span is None
        or (int(span[1]), int(span[2])) != (part.size, state.length)
        or response.headers.get("ETag", state.etag) != state.etag
        or response.headers.get("Last-Modified", state.modified) != state.modified
    ):
        part.clear()
        raise _Cut("the file changed on the server")


def _require_room(part: _Part, length: int | None, limit: int, room: float) -> None:
    if length is None:
        return
    if length > limit:
        part.clear()
        raise SpurbenchError(f"{part.url} has {_mb(length)}, more than {_mb(limit)}; refused")
    needed, free = room * length - part.size, shutil.disk_usage(part.file.parent).free
    if needed > free:
        if not part.size:
            part.clear()
        raise SpurbenchError(
            f"{part.file.parent} has {_mb(free)} free, and {part.url} needs {_mb(needed)}; make "
            "room there, or name another folder"
        )


def _mb(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"
