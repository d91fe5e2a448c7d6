"""Which classifiers are asked for: read and checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from spurbench.classifiers.load import Checkpoint, check_spec, read_member
from spurbench.core.documents import Document, read_toml, validated
from spurbench.core.errors import SpurbenchError


class _File(Document):
    classifiers: tuple[str, ...] = Field(min_length=1, description="SPEC or SPEC=CHECKPOINT")


def read_members(
    specs: Sequence[str], file: Path | None, checkpoint: Path | None
) -> dict[str, tuple[str, Checkpoint | None]]:
    """Each classifier that is asked for, as it was written: its SPEC and its checkpoint.

    Args:
        specs: ``SPEC`` or ``SPEC=CHECKPOINT``; relative checkpoints start from the current folder.
        file: a TOML file with a list ``classifiers`` of more of them; its relative checkpoints
            start from its folder.
        checkpoint: of the only classifier.

    Raises:
        SpurbenchError: if none is asked for or one twice, the file is wrong, one checkpoint is to
            serve several classifiers, or for what
            :func:`~spurbench.classifiers.load.check_spec` finds.
    """
    asked = [(spec, Path()) for spec in specs]
    if file is not None:
        asked += [(spec, file.parent) for spec in _read_file(file).classifiers]
    if not asked:
        raise SpurbenchError("no classifier to measure; give --model SPEC or --panel FILE")
    named = [spec for spec, _ in asked]
    twice = {spec for spec in named if named.count(spec) > 1}
    if twice:
        raise SpurbenchError(f"classifier {min(twice)} is asked for twice")
    if checkpoint is None:
        return {spec: read_member(spec, folder) for spec, folder in asked}
    if len(asked) > 1:
        raise SpurbenchError("--checkpoint goes with one --model; say --model SPEC=CHECKPOINT")
    check_spec(named[0], checkpoint)
    return {named[0]: (named[0], checkpoint)}


def _read_file(path: Path) -> _File:
    try:
        return validated(_File, read_toml(path), f"panel {path}", _File.model_fields)
    except FileNotFoundError:
        raise SpurbenchError(f"panel {path} can't be read: no such file") from None
