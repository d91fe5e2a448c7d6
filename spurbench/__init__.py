"""Generate images of spurious features and measure which classifiers they fool.

The functions below are loaded on first use, so ``import spurbench`` is quick.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spurbench.api import (
        build,
        compare,
        evaluate,
        leaderboard,
        load_classifier,
        open_images,
        open_positives,
    )
    from spurbench.evaluation.results import Result

__version__ = "0.1.0"

# onnxruntime reports its use to its makers, and leaves a file of it in the folder for temporary
# files, unless this is set before anything imports it. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Result",
    "build",
    "compare",
    "evaluate",
    "leaderboard",
    "load_classifier",
    "open_images",
    "open_positives",
]

_HOMES = dict.fromkeys(__all__, "spurbench.api") | {"Result": "spurbench.evaluation.results"}
_PACKAGES = {"build", "leaderboard"}
"""Functions that are packages too; see :mod:`spurbench.core.callable`."""


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"spurbench.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'spurbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
