"""Documents from outside, TOML and JSON: their frozen base, and the one line for what is wrong."""

from __future__ import annotations

import difflib
import json
import reprlib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spurbench.core.errors import SpurbenchError

Share = Annotated[float, Field(ge=0, le=1)]

VERSION = r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}$"

Version = Annotated[str, Field(pattern=VERSION)]
"""X.Y.Z, of a dataset."""


class Document(BaseModel):
    """What is read from and written to files: frozen, and no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


Validated = TypeVar("Validated", bound=BaseModel)


def validated(
    model: type[Validated], document: Any, where: str, known: Iterable[str] = ()
) -> Validated:
    """A document as a model.

    Args:
        model: its schema.
        document: as parsed.
        where: what to call it in messages, such as its path.
        known: dotted keys to suggest from when a key is unknown.

    Raises:
        SpurbenchError: with the first fault, in one line.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise SpurbenchError(f"{where}: {describe(error, known)}") from None


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file; a pipe or a device would be read for ever.

    Raises:
        FileNotFoundError: if there is none, for the caller knows what that means.
        SpurbenchError: if it is not a regular file, or can't be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise SpurbenchError(f"{path} is not a regular file; name one that is")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpurbenchError(f"{path} can't be read: {reason}") from None


def read_text(path: Path) -> str:
    """The text of a regular file in UTF-8.

    Raises:
        FileNotFoundError: see :func:`read_bytes`.
        SpurbenchError: see :func:`read_bytes`; or if it is not UTF-8.
    """
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise SpurbenchError(f"{path} is not UTF-8 text: {error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        FileNotFoundError: see :func:`read_bytes`.
        SpurbenchError: if it can't be read, or is not TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise SpurbenchError(f"{path} is not valid TOML: {error}") from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number of too many digits
        raise SpurbenchError(f"{path} is not sensible TOML: {error}") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        FileNotFoundError: see :func:`read_bytes`.
        SpurbenchError: if it can't be read, or is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (RecursionError, ValueError) as error:
        raise SpurbenchError(f"{path} is not valid JSON: {error}") from None


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
