"""`spurbench validity`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spurbench.cli.options import device_option, engine_options
from spurbench.cli.terminal import say, silence_libraries


@click.command()
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    default=("mini",),
    show_default=True,
    help="Of a world; repeatable. The first has a validity.toml beside it.",
)
@click.option(
    "--zoo",
    "zoos",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of classifiers to measure, for each --recipe. [default: RECIPE/zoo, out/zoo]",
)
@click.option(
    "--truth",
    "truths",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What `mini reliance` says of them, for each --recipe. [default: beside --zoo]",
)
@click.option("--rows", "wanted_rows", default="", help="Names of rows, by comma. [default: all]")
@click.option("--search", is_flag=True, help="Search for a loss: its rows, classes and images.")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    help="Makings of each row: seeds 0, 1, ... [default: 3; of a search 1]",
)
@click.option(
    "--classes",
    "wanted",
    help="As in build. [default: those of the search, or all that it did not choose on]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a recipe key in every row; repeatable.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of datasets, answers and tables. [default: out/validity, out/validity-search]",
)
@engine_options
@device_option
def validity(
    recipes: tuple[str, ...],
    zoos: tuple[Path, ...],
    truths: tuple[Path, ...],
    wanted_rows: str,
    search: bool,
    seeds: int | None,
    wanted: str | None,
    overrides: tuple[str, ...],
    output: Path | None,
    engine: Any,
    workers: int | None,
    address: str | None,
    engine_options: Path | None,
    device: str,
) -> None:
    """Ask which test sets tell what classifiers truly rely on: tables, plots.

    Ways of making a test set are the rows of the recipe's validity.toml. The same command goes on
    after an interruption; of a finished study it works the tables out anew.
    """
    silence_libraries()

    from spurbench.studies.validity.plan import ValidityRequest

    request = ValidityRequest.of(
        recipes,
        zoos=zoos,
        truths=truths,
        rows=[name.strip() for name in wanted_rows.split(",") if name.strip()],
        search=search,
        classes=wanted,
        overrides=overrides,
        seeds=seeds,
        output=output,
        device=device,
    )
    say(
        f"{len(request.worlds)} worlds, {len(request.rows)} rows, {len(request.seeds)} seeds, "
        f"device: {request.device}."
    )

    from spurbench.engines.choose import open_engine
    from spurbench.studies.validity.report import render_markdown
    from spurbench.studies.validity.validity import validity as run_validity

    chosen = open_engine(
        engine,
        units=max(len(world.classes) for world in request.worlds),
        device=str(request.device),
        workers=workers,
        address=address,
        options=engine_options,
    )
    click.echo(render_markdown(run_validity(request, chosen)))
    say(f"Wrote validity.json, validity.md and plots to {request.output}")
