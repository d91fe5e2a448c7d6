"""The one error that users are meant to read."""

from __future__ import annotations

from spurbench.core.text import printable


class SpurbenchError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback (``--debug`` shows one) and exits with status 1.
    File names in it may hold anything, such as a line feed that would forge a second message, so
    what can't be printed is escaped.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def described(error: BaseException) -> str:
    """What an error says, in one line, after its type if it is not one that users can mend.

    For one that must not end what goes on beside it.
    """
    if isinstance(error, SpurbenchError):
        return str(error)
    said, kind = reason(error), type(error).__name__
    return said if said == kind else f"{kind}: {said}"
