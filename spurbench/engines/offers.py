"""Units offered in a folder that many machines see: whoever renames an offer first has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spurbench.core import atomic


@dataclass(frozen=True)
class Taken:
    """An offer that was taken.

    Attributes:
        unit: its place among the work's units.
        taker: who has it.
        ended: None as long as that has not said more; else "" or why it failed.
    """

    unit: int
    taker: str
    ended: str | None


class Offers:
    """``folder/offered``, ``taken`` and ``ended``: an offer wanders from one to the next.

    Its file is called by its number and the unit's place, so no content can be seen half written;
    a rename succeeds once, on network file systems too.
    """

    def __init__(self, folder: Path) -> None:
        self._offered, self._taken, self._ended = (
            folder / name for name in ("offered", "taken", "ended")
        )
        self._refused = folder / "refused"

    def open(self) -> None:
        """Make the folders, before anything is offered or taken."""
        for folder in (self._offered, self._taken, self._ended):
            folder.mkdir(parents=True)

    def offer(self, number: int, unit: int) -> None:
        """Add one; the lowest numbers are taken first."""
        (self._offered / f"{number:06}-{unit}").touch(exist_ok=False)

    def take(self, taker: str) -> tuple[str, int] | None:
        """Take one: what it is called, and the unit's place; None if there is none."""
        for offer in sorted(path.name for path in self._offered.iterdir()):
            try:
                (self._offered / offer).rename(self._taken / f"{offer}-{taker}")
            except FileNotFoundError:  # someone else was faster
                continue
            return offer, int(offer.split("-")[1])
        return None

    def end(self, offer: str, why: str = "") -> None:
        """Say that the unit of an offer that was taken is done, or ``why`` it failed."""
        atomic.write_text(self._ended / offer, why)

    def taken(self) -> dict[str, Taken]:
        """What was taken, by what it is called."""
        ended = {path.name: path for path in self._ended.glob("[0-9]*")}
        found = {}
        for path in self._taken.iterdir():
            number, unit, taker = path.name.split("-", 2)
            offer = f"{number}-{unit}"
            said = ended[offer].read_text(encoding="utf-8") if offer in ended else None
            found[offer] = Taken(int(unit), taker, said)
        return found

    def refuse(self, why: str) -> None:
        """Say why no unit can be done at all."""
        atomic.write_text(self._refused, why)

    def refused(self) -> str | None:
        """Why no unit can be done at all, if a taker said so."""
        return self._refused.read_text(encoding="utf-8") if self._refused.exists() else None
