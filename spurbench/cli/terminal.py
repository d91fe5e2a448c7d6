"""What reaches the terminal: text that can't command it, and no noise of other libraries."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from typing import Any

import click

from spurbench.core.text import printable


def say(line: str, *, error: bool = False) -> None:
    """Print one line that may hold names from outside; ``error``: to standard error."""
    click.echo(printable(line), err=error)


def say_json(value: Any) -> None:
    """Print a JSON document; whatever it holds from outside is escaped."""
    click.echo(json.dumps(value, indent=2))


class _OneLine(logging.Formatter):
    """A message is one line; a traceback, with ``--debug``, follows as it is."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(record.message)


class _ToStandardError(logging.Handler):
    """To what standard error is when a line is said: bars that are drawn there step in for it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201
        except Exception:  # as all handlers: a line that can't be said must not end the work
            self.handleError(record)


def set_up(*, debug: bool, quiet: bool) -> None:
    """Say what is asked for: ``debug`` everything, ``quiet`` results and errors alone.

    Other libraries' warnings about the future are for their users, us; ``debug`` shows them.
    """
    handler = _ToStandardError()
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("spurbench")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.ERROR if quiet else logging.INFO)
    if not debug and not sys.warnoptions:
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
    if quiet:
        # Filters don't do, nor levels of single loggers: libraries set their own when imported.
        warnings.showwarning = lambda *_, **__: None
        logging.getLogger().setLevel(logging.ERROR)
        silence_libraries()
        _silence_bars()


def accept_any_character() -> None:
    """Print what the terminal's encoding lacks as an escape instead of failing over it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_libraries() -> None:
    """Other libraries' bars and notes are noise between our own lines.

    Their settings are taken from the environment when they are imported, so a command says this
    before it imports any of them.
    """
    for name, value in {
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DIFFUSERS_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)


def _silence_bars() -> None:
    """Every bar imported from now on, ours too, draws nothing."""
    import tqdm
    import tqdm.std

    class Silent(tqdm.std.tqdm):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **{**settings, "disable": True})

    tqdm.tqdm = tqdm.std.tqdm = Silent  # type: ignore[misc]
