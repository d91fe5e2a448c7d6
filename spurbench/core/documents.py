"""Turning pydantic's reports into the one line a user reads."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

from pydantic import ValidationError


def describe(error: ValidationError, known: Iterable[str] = ()) -> str:
    """The first fault of ``error`` in one line: the key, what is wrong, the nearest known key.

    Args:
        error: what pydantic raised.
        known: dotted keys to suggest from when the fault is an unknown key.
    """
    faults = error.errors()
    first = faults[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, list(known), n=3, cutoff=0.5)
        text = f"unknown key {key!r}" + (f"; nearest: {', '.join(near)}" if near else "")
    elif first["type"] == "missing":
        text = f"key {key!r} is missing"
    elif key:
        text = f"{key}: {first['msg']}, got {reprlib.repr(first['input'])}"
    else:
        text = str(first["msg"])
    more = len(faults) - 1
    return text + (f" (and {more} more fault{'s' if more > 1 else ''})" if more else "")
