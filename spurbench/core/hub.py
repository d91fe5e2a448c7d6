"""Reaching the Hugging Face hub, or falling back, audibly, to what is cached."""

from __future__ import annotations

import logging
import os
import sys
import urllib.error
import urllib.request

log = logging.getLogger(__name__)

PATIENCE = 4
"""Seconds to wait for an answer."""


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
