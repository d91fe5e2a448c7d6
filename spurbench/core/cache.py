"""Where what took long to compute is kept between runs, whatever folder they are started in."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """``spurbench`` in ``$XDG_CACHE_HOME``, which is ``~/.cache`` where it isn't set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "spurbench"
