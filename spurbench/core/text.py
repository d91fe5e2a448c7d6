"""Text from outside that goes to a terminal or a file: always one line, always printable."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    r"""Text with whatever can't be printed shown by its number, as in ``\n`` and ``\udcff``.

    The latter is a byte of a file name that is not UTF-8; no encoding could write it.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def with_article(noun: str) -> str:
    """A noun after its indefinite article, by its first letters: an orange, a unicycle."""
    start = noun.lower()
    vowel = start.startswith(("a", "e", "i", "o", "u", "hour"))
    consonant = start.startswith(("uni", "use", "uke", "eu", "ewe", "one-", "once"))
    return f"{'an' if vowel and not consonant else 'a'} {noun}"


def slug(words: str) -> str:
    """Words as a file is named after them, e.g. "on-the-beach"."""
    return "-".join(re.findall(r"[a-z0-9]+", words.lower()))


def label(name: str) -> str:
    r"""A file name as text: printable, and lossless, for its own backslashes are doubled."""
    return printable(name.replace("\\", "\\\\"))
