"""Commands that rank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from spurbench.cli.tables import show
from spurbench.cli.terminal import say


class _WithDefault(click.Group):
    """A group whose ``default`` command takes what does not begin with a command's name."""

    def __init__(self, *arguments: Any, default: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.default = default

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        own = {*self.commands, *context.help_option_names}
        if arguments and arguments[0] not in own:
            arguments = [self.default, *arguments]
        return super().parse_args(context, arguments)


@click.group(cls=_WithDefault, default="show")
def leaderboard() -> None:
    """Rank classifiers; lower is better.

    \b
    spurbench leaderboard RESULTS... [--output DIR]    tables (short for leaderboard show)
    spurbench leaderboard build RESULTS... --data DATASET    publish entries and a page
    """


@leaderboard.command(name="show")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write README.md, and a page and a CSV per board, here. [default: print only]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Classifiers of a board, the best ones.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: every column, shares in [0, 1].")
def show_boards(
    results: tuple[Path, ...], output: Path | None, limit: int | None, as_json: bool
) -> None:
    """Rank classifiers from results and entries (files or folders); lower is better."""
    from spurbench.leaderboard import boards, tables

    made = boards.boards(boards.read(results))
    if as_json:
        documents = [tables.to_document(board, limit) for board in made]
        click.echo(json.dumps(documents, indent=2, allow_nan=False))
    else:
        show(*(tables.to_table(board, limit) for board in made))
        for board in made:
            if board.untested:
                say(f"{board.title}: no tie groups: {board.untested}", error=True)
    if output is not None:
        for path in tables.write(made, output):
            say(str(path), error=as_json)


@leaderboard.command(name="build")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--data",
    multiple=True,
    help="Dataset that was measured, for sample images; repeatable. As in eval.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("leaderboards"),
    show_default=True,
    help="Folder of entries; what it holds already stays on the page.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=6,
    show_default=True,
    help="Sample images per class and split.",
)
def build_leaderboard(
    results: tuple[Path, ...], data: tuple[str, ...], output: Path, samples: int
) -> None:
    """Publish results: a JSON entry each, Markdown, CSV, and a page of its own, index.html.

    Without RESULTS, the entries in the output folder are rendered again.
    """
    from spurbench.leaderboard.page import build as run_build

    for path in run_build(results, data, output, samples=samples):
        say(str(path))
