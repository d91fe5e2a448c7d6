"""Reaching the Hugging Face hub, or falling back, audibly, to what is cached."""

from __future__ import annotations

import logging
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from spurbench.core.errors import SpurbenchError, reason

log = logging.getLogger(__name__)

PATIENCE = 4
"""Seconds to wait for an answer."""

T = TypeVar("T")


@dataclass(frozen=True)
class HubFile:
    """A file of a model repository on the hub, ``hf://OWNER/NAME/FILE``."""

    repository: str
    file: str

    @classmethod
    def parse(cls, text: str) -> HubFile | None:
        """The file that an ``hf://`` address names; None for anything else.

        Raises:
            SpurbenchError: if such an address names no file.
        """
        if not text.startswith("hf://"):
            return None
        match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)/([\w.-]+(?:/[\w.-]+)*)", text)
        if match is None or ".." in match[2].split("/"):
            raise SpurbenchError(f"{text} is not hf://OWNER/NAME/FILE")
        return cls(match[1], match[2])

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.file.rpartition("/")[2]

    def fetch(self) -> Path:
        """Download it, or find it in the cache; see :func:`download`."""
        use_cache_if_unreachable()
        return download(self.repository, self.file)


def download(repository: str, file: str, *, revision: str | None = None) -> Path:
    """A file of a model repository, in the cache.

    Raises:
        SpurbenchError: if the repository has no such file, or it can't be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    def fetch() -> Path:
        try:
            return Path(hf_hub_download(repository, file, revision=revision))
        except LocalEntryNotFoundError:  # offline, and not cached
            raise
        except RemoteEntryNotFoundError:
            raise SpurbenchError(
                f"{repository} on the hub has no {file}; nothing but that is read there, for "
                "other weights may have to be unpickled"
            ) from None

    return fetched(f"{repository}/{file}", fetch)


def fetched(name: str, load: Callable[[], T]) -> T:
    """What ``load`` gives, which may have to be fetched; what goes wrong on the way is one line.

    Raises:
        SpurbenchError: if ``load`` raises anything.
    """
    try:
        return load()
    except SpurbenchError:
        raise
    except Exception as error:  # hub, HTTP, socket and file errors have no common ancestor
        sentence = reason(error).split(". ")[0][:200]
        raise SpurbenchError(
            f"weights of {name} can't be had ({sentence}); check the network, or give "
            "--checkpoint FILE with local weights"
        ) from error


def use_cache_if_unreachable() -> None:
    """Where the hub does not answer, say so once and use only what is cached.

    Its clients would retry every file for a minute before they give up.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return
    problem = unreachable(constants.ENDPOINT)
    if problem is None:
        return
    log.warning("%s; only what is cached can be used", problem)
    os.environ["HF_HUB_OFFLINE"] = "1"
    for module in ("huggingface_hub.constants", "datasets.config"):
        if module in sys.modules:
            sys.modules[module].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def unreachable(url: str) -> str | None:
    """Why a host can't be reached, through the proxy that the environment names; None if it can."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "spurbench"})
    try:
        urllib.request.urlopen(request, timeout=PATIENCE).close()
    except urllib.error.HTTPError:
        return None  # the host, or a proxy for it, answers; the file's own request says more
    except (OSError, ValueError) as error:
        return f"{url} does not answer ({getattr(error, 'reason', error)})"
    return None
