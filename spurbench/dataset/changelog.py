"""A dataset's changelog: what each version changed, carried from one to the next."""

from __future__ import annotations

from spurbench.core.errors import SpurbenchError
from spurbench.dataset import diff
from spurbench.dataset.manifest import ChangelogEntry, Snapshot


def first(version: str, note: str | None) -> tuple[ChangelogEntry, ...]:
    """The changelog of a dataset that has no earlier version."""
    return (ChangelogEntry(version=version, note=note, changes=("the first version",)),)


def extended(old: Snapshot, new: Snapshot, note: str | None) -> tuple[ChangelogEntry, ...]:
    """The old version's changelog, with the new version's entry before it.

    The entry's changes are what :func:`spurbench.dataset.diff.compare` finds.
    """
    changes = tuple(diff.summarise(diff.compare(old, new)))
    return (ChangelogEntry(version=new.version, note=note, changes=changes), *old.changelog)


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
