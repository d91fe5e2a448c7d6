"""Text from outside that goes to a terminal or a file: always one line, always printable."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Text with whatever can't be printed shown by its number, as in ``\n`` and ``\udcff``.

    The latter is a byte of a file name that is not UTF-8; no encoding could write it.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def label(name: str) -> str:
    r"""A file name as text: printable, and lossless, for its own backslashes are doubled."""
    return printable(name.replace("\\", "\\\\"))
