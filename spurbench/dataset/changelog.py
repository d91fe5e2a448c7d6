"""A dataset's changelog: what each version changed, carried from one to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spurbench.core.errors import SpurbenchError
from spurbench.dataset import diff

Entry = Mapping[str, Any]
"""``version``, ``note`` (or null) and ``changes``, a list of sentences."""


def first(version: str, note: str | None) -> list[Entry]:
    """The changelog of a dataset that has no earlier version."""
    return [{"version": version, "note": note, "changes": ["the first version"]}]


def extended(
    earlier: Sequence[Entry], old: diff.Snapshot, new: diff.Snapshot, note: str | None
) -> list[Entry]:
    """The earlier version's changelog, with the new version's entry before it.

    The entry's changes are what :func:`spurbench.dataset.diff.compare` finds.
    """
    changes = diff.summarise(diff.compare(old, new))
    return [{"version": new.version, "note": note, "changes": changes}, *earlier]


def require_successor(old: tuple[str, str], new: tuple[str, str]) -> None:
    """Refuse an earlier version that is not one.

    Args:
        old: name and version of the dataset given as the earlier one.
        new: name and version of the dataset to be built.

    Raises:
        SpurbenchError: if the names differ, or the version does not rise.
    """
    if old[0] != new[0]:
        raise SpurbenchError(f"--previous is of {old[0]}, not of {new[0]}; leave it out")
    if version_key(new[1]) <= version_key(old[1]):
        raise SpurbenchError(
            f"--previous is {old[0]} {old[1]}, which does not precede {new[1]}; raise --version"
        )


def version_key(version: str) -> tuple[int, ...]:
    """The numbers of an X.Y.Z version, to compare versions by."""
    return tuple(int(part) for part in version.split("."))
