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
    revision: str | None = None

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
        return download(self.repository, self.file, revision=self.revision)

    def cached(self) -> Path | None:
        """Where it lies in the cache; None if it does not."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.repository, self.file, revision=self.revision)
        return Path(found) if isinstance(found, str) else None

    def size(self) -> int | None:
        """Its bytes, for which the hub is asked; None if it does not say.

        Raises:
            SpurbenchError: if it is not there, or not to be reached.
        """
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

        if constants.HF_HUB_OFFLINE:
            raise SpurbenchError("HF_HUB_OFFLINE is set")
        try:
            url = hf_hub_url(self.repository, self.file, revision=self.revision)
            return get_hf_file_metadata(url, timeout=PATIENCE).size
        except Exception as error:  # hub, HTTP and socket errors have no common ancestor
            raise SpurbenchError(reason(error).split(". ")[0][:120]) from None


@dataclass(frozen=True)
class TorchFile:
    """A file at an address, which torch keeps once it is fetched.

    Attributes:
        url: where it is fetched from.
        folder: of torch's, in which it is kept.
    """

    url: str
    folder: str = "checkpoints"

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.url.rpartition("/")[2]

    def cached(self) -> Path | None:
        """Where it is kept; None if it is not."""
        path = torch_home() / "hub" / self.folder / self.name
        return path if path.is_file() else None

    def size(self) -> int | None:
        """Its bytes, for which its host is asked; None if that does not say.

        Raises:
            SpurbenchError: if it is not there, or not to be reached.
        """
        agent = {"User-Agent": "spurbench"}
        request = urllib.request.Request(self.url, method="HEAD", headers=agent)
        try:
            # A redirection followed would ask for the file itself.
            with urllib.request.build_opener(_Unfollowed).open(request, timeout=PATIENCE) as found:
                length = found.headers.get("Content-Length")
        except urllib.error.HTTPError as error:
            if error.code not in range(300, 400):
                raise SpurbenchError(f"{error.code} {error.reason}") from None
            length = error.headers.get("X-Linked-Size")
        except (OSError, ValueError) as error:
            raise SpurbenchError(str(getattr(error, "reason", error))) from None
        return int(length) if length else None


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def torch_home() -> Path:
    """Where torch keeps what it fetches, found without waiting for torch to be imported."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser()


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
