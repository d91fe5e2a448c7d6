"""A worker as an engine sees it, and what its messages mean."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from spurbench.core.errors import SpurbenchError
from spurbench.engines.ledger import Ledger
from spurbench.engines.view import View
from spurbench.engines.work import Unit


class Seat(Protocol):
    """A worker's place.

    Attributes:
        unit: what its worker has in work.
    """

    unit: Unit | None

    def take(self) -> Unit:
        """The unit that it was given, of which it is free now."""
        ...

    def bury(self) -> tuple[Unit | None, str]:
        """The unit over which its worker ended, and how it did."""
        ...


def heed(seat: Seat, message: dict[str, Any], ledger: Ledger, view: View) -> None:
    """Take note of what a worker says (:mod:`spurbench.engines.worker`), or of its end.

    Raises:
        SpurbenchError: if it can't open the work: no other could.
    """
    match message.pop("event"):
        case "progress":
            if seat.unit is not None:  # the last of a unit may come after its end
                view.advance(seat.unit.name, **message)
        case "log":
            logging.getLogger(message["name"]).log(message["level"], "%s", message["text"])
        case "unopened":
            raise SpurbenchError(message["why"])
        case "done":
            unit = seat.take()
            ledger.succeed(unit)
            view.end(unit.name)
        case "failed":
            unit = seat.take()
            ledger.fail(unit, message["why"])
            view.end(unit.name)
        case "ended":
            lost, how = seat.bury()
            if lost is not None:
                ledger.lose(lost, how)
                view.end(lost.name)
