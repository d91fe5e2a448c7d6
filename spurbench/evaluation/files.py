"""Files of results among others: what a JSON says that it is."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from spurbench.core.errors import SpurbenchError


def result_files(paths: Iterable[Path], schemas: Collection[str]) -> list[Path]:
    """The files of some schemas, of whatever version, that are named or lie in folders.

    Args:
        paths: files, or folders that are searched to any depth. A JSON in a folder that is of no
            such schema is passed over; a file named here is not looked into.
        schemas: such as ``spurbench.result/2``.

    Returns:
        Resolved, each once, in order.

    Raises:
        SpurbenchError: if a path is missing, or a JSON in a folder is damaged.
    """
    wanted = {family(schema) for schema in schemas}
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found = [file.resolve() for file in sorted(path.rglob("*.json"))]
            claiming = [f for f in found if family(schema_of(f, f.read_bytes())) in wanted]
            files.update(dict.fromkeys(claiming))
        elif path.is_file():
            files[path.resolve()] = None
        else:
            raise SpurbenchError(
                f"no file or folder of results at {path}; `spurbench eval` writes them"
            )
    return list(files)


def schema_of(path: Path, content: bytes) -> str | None:
    """What a JSON says that it is; None if it says nothing.

    Args:
        path: to name it by.
        content: of the file.

    Raises:
        SpurbenchError: if it is not JSON, as far as that has to be read.
    """
    # Ours say it first; a board's files are long, and are parsed when they are read.
    first = re.match(rb'\s*\{\s*"schema"\s*:\s*"([^"\\]*)"', content)
    if first:
        return first[1].decode(errors="replace")
    try:
        document = json.loads(content)
    except ValueError as error:
        raise SpurbenchError(
            f"{path} is damaged, not JSON ({error}); delete it or measure again"
        ) from None
    return str(document.get("schema")) if isinstance(document, dict) else None


def family(schema: str | None) -> str | None:
    """A schema without its version."""
    return schema and schema.rpartition("/")[0]
