"""The group of all commands, and how any of them ends."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from spurbench import __version__
from spurbench.cli.ablate import ablate
from spurbench.cli.build import build, classes
from spurbench.cli.dataset import diff, push, quality, verify
from spurbench.cli.doctor import doctor
from spurbench.cli.evaluate import compare, evaluate, select
from spurbench.cli.leaderboard import leaderboard
from spurbench.cli.mini import mini
from spurbench.core.errors import SpurbenchError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """A group whose commands end in one line, not in a traceback, unless ``--debug`` is given."""

    def invoke(self, context: click.Context) -> Any:
        debug = context.params.get("debug", False)
        try:
            return super().invoke(context)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except SpurbenchError as error:
            if debug:
                raise
            raise click.ClickException(str(error)) from None
        except Exception as error:
            if debug:
                raise
            if isinstance(error, OSError) and error.filename and error.strerror:
                raise click.ClickException(f"{error.filename}: {error.strerror}") from error
            reason = next(iter(str(error).splitlines()), "")
            raise click.ClickException(
                f"{type(error).__name__}: {reason} (unexpected; --debug before the command shows "
                "where, please report it)"
            ) from error


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="spurbench")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
@click.option("--quiet", "-q", is_flag=True, help="Show warnings and errors only.")
def main(debug: bool, quiet: bool) -> None:
    """Generate images of spurious features and measure which classifiers they fool.

    \b
    spurbench build --classes all                     make a dataset (embedded recipe, offline)
    spurbench eval --model resnet50 --data DATASET    measure a classifier on it
    spurbench leaderboard RESULTS                     rank classifiers
    """
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("spurbench")
    logger.handlers = [handler]
    logger.setLevel(level)


for command in (
    build,
    classes,
    evaluate,
    compare,
    leaderboard,
    select,
    ablate,
    verify,
    diff,
    push,
    quality,
    mini,
    doctor,
):
    main.add_command(command)
