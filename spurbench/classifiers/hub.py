"""Classifiers on the Hugging Face hub in timm's format, ``hf-hub:OWNER/NAME``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from spurbench.classifiers.folder import CONFIG, WEIGHTS, loaded, read_folder
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
    config, weights = (
        hub.download(repository, file, revision=revision or None) for file in (CONFIG, WEIGHTS)
    )
    return loaded(read_folder(config, weights), name)


def _published(name: str) -> list[hub.HubFile]:
    repository, _, revision = name.partition("@")
    return [hub.HubFile(repository, WEIGHTS, revision or None)]


SOURCE = Source("hf-hub", _load, _check, published=_published)
