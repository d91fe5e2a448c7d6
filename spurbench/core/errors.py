"""The one error that users are meant to read."""

from __future__ import annotations


class SpurbenchError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what to do.

    The command line prints it without a traceback (``--debug`` shows one) and exits with status 1.
    """


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
