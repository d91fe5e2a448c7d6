"""Classifiers on the Hugging Face hub in timm's format, ``hf-hub:OWNER/NAME``."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from spurbench.classifiers.folder import (
    CONFIG,
    SPUFIX,
    WEIGHTS,
    loaded,
    read_folder,
    with_fix,
)
from spurbench.classifiers.sources import OwnWeights, Source
from spurbench.core import hub
from spurbench.core.errors import SpurbenchError

if TYPE_CHECKING:
    from spurbench.classifiers.classifier import Loaded


def _check(name: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name):
        raise SpurbenchError(f"hf-hub:{name} is not hf-hub:OWNER/NAME, with @REVISION at will")


def _load(name: str, own: OwnWeights | None) -> Loaded:
    repository, _, revision = name.partition("@")
    hub.use_cache_if_unreachable()
    fetch = partial(hub.download, repository, revision=revision or None)
    folder = read_folder(fetch(CONFIG), fetch(WEIGHTS))
    made = loaded(folder, name)
    return with_fix(made, fetch(SPUFIX)) if folder.config.fixed else made


def _published(name: str) -> list[hub.HubFile]:
    repository, _, revision = name.partition("@")
    return [hub.HubFile(repository, WEIGHTS, revision or None)]


SOURCE = Source("hf-hub", _load, _check, published=_published)
