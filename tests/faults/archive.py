"""An archive of photographs at an address of its own, in the process of a command."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from makers.files_server import serving
from spurbench.core import download
from spurbench.images import official

HOST = "photographs.test"
URL = f"http://{HOST}/images.zip"

IMAGES = 2
"""Of each class, that a fetch expects here."""


def served(content: bytes, **faults: Any) -> Callable[[], None]:
    """What has a command find ``content`` at :data:`URL`; faults as in :class:`Files`.

    The server lives and dies with the process. Its port differs, its address does not, so that a
    fetch can go on with what an earlier one got.
    """

    def enter() -> None:
        context = serving(content, **faults)
        port = int(context.__enter__().endpoint.rpartition(":")[2])
        connect = socket.create_connection

        def connected(address: tuple[str, int], *arguments: Any, **settings: Any) -> Any:
            own = address[0] == HOST
            return connect(("127.0.0.1", port) if own else address, *arguments, **settings)

        socket.create_connection = connected  # type: ignore[assignment]
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
        official.IMAGES, download.PAUSE = IMAGES, 0.0
        _kept.append(context)

    return enter


_kept: list[Any] = []
"""What would stop when nobody holds it."""
