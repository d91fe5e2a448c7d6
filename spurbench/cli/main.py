"""The group of all commands, and how any of them ends."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import click

from spurbench import __version__
from spurbench.cli import endings, terminal
from spurbench.cli.ablate import ablate
from spurbench.cli.build import build, classes
from spurbench.cli.dataset import diff, export, push, quality, verify
from spurbench.cli.discover import discover
from spurbench.cli.doctor import doctor
from spurbench.cli.evaluate import compare, evaluate, select
from spurbench.cli.fetch import fetch
from spurbench.cli.leaderboard import leaderboard, submit
from spurbench.cli.mend import mend
from spurbench.cli.mini import mini
from spurbench.cli.probe import probe
from spurbench.cli.report import report
from spurbench.cli.survey import survey
from spurbench.cli.validity import validity
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.text import printable

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """A group whose commands end in one line, not in a traceback, unless ``--debug`` is given."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        terminal.accept_any_character()
        with warnings.catch_warnings(), endings.terminating_in_order():
            return super().main(*arguments, **settings)

    def invoke(self, context: click.Context) -> Any:
        debug = context.params.get("debug", False)
        try:
            returned = super().invoke(context)
            sys.stdout.flush()
            return returned
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.ClickException as error:
            vars(error)["message"] = printable(error.message)
            raise
        except (click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            endings.leave_output()
            raise click.exceptions.Exit(endings.READER_GONE) from None
        except KeyboardInterrupt:
            click.echo("\nInterrupted", err=True)
            raise click.exceptions.Exit(endings.INTERRUPTED) from None
        except Exception as error:
            if isinstance(error, OSError) and not _can_print():
                endings.leave_output()
            if debug:
                raise
            said = str(error) if isinstance(error, SpurbenchError) else endings.explained(error)
            raise click.ClickException(
                printable(
                    said
                    or f"{type(error).__name__}: {reason(error)} (unexpected; --debug before the "
                    "command shows where, please report it)"
                )
            ) from None


def _can_print() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="spurbench")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
@click.option(
    "--quiet",
    "-q",
    is_flag=True,
    help="No progress, notes or warnings, ours or libraries': results and errors.",
)
def main(debug: bool, quiet: bool) -> None:
    """Generate images of spurious features and measure which classifiers they fool.

    \b
    spurbench fetch spurious-imagenet    get the photographs
    spurbench build --classes all        make a dataset (embedded recipe, offline)
    spurbench eval --model resnet50      measure a classifier on what is at hand, or on --data
    spurbench leaderboard RESULTS        rank classifiers
    spurbench submit RESULT              propose a result for the leaderboard
    """
    terminal.set_up(debug=debug, quiet=quiet)


for command in (
    build,
    classes,
    fetch,
    evaluate,
    compare,
    leaderboard,
    submit,
    select,
    ablate,
    validity,
    report,
    discover,
    mend,
    probe,
    verify,
    diff,
    push,
    export,
    quality,
    survey,
    mini,
    doctor,
):
    main.add_command(command)
