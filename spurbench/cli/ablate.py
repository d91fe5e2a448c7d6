"""`spurbench ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spurbench.cli.options import FOLDER, device_option, engine_options, recipe_options
from spurbench.cli.terminal import say, silence_libraries


@click.command()
@click.option(
    "--recipe", default="mini", show_default=True, help="With an ablation.toml beside it."
)
@click.option("--rows", "wanted_rows", default="", help="Names of rows, by comma. [default: all]")
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Builds of each row: seeds 0, 1, ...",
)
@recipe_options
@click.option(
    "--output",
    type=FOLDER,
    help="Folder of datasets and tables. [default: out/ablation-RECIPE]",
)
@click.option(
    "--unseen",
    multiple=True,
    metavar="SPEC",
    help="Measure a classifier that had no part in the images too; as --model of eval; repeatable.",
)
@engine_options
@device_option
def ablate(
    recipe: str,
    wanted_rows: str,
    seeds: int,
    wanted: str,
    data: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    unseen: tuple[str, ...],
    engine: Any,
    workers: int | None,
    address: str | None,
    engine_options: Path | None,
    device: str,
) -> None:
    """Compare variations of a recipe over several seeds: table, plot, samples.

    The rows are those of the recipe's ablation.toml. The same command goes on after an
    interruption.
    """
    silence_libraries()

    from spurbench.core.environment import choose_device
    from spurbench.recipe.load import read_recipe
    from spurbench.studies.ablation.plan import AblationRequest, read_plan

    names = [name.strip() for name in wanted_rows.split(",") if name.strip()]
    base = read_recipe(recipe, overrides)
    base.photographs(data)  # what is missing is said now, not after the seconds of imports
    request = AblationRequest(
        recipe=recipe,
        plan=read_plan(recipe, names),
        overrides=overrides,
        classes=base.classes.select(wanted),
        data=data,
        seeds=range(seeds),
        output=output or Path("out") / f"ablation-{base.name}",
        device=choose_device(device),
        unseen=unseen,
    )
    say(
        f"Recipe {base.name}: {len(request.plan.variations)} rows, {seeds} seeds, "
        f"{len(request.classes)} classes, device: {request.device}."
    )

    from spurbench.engines.choose import open_engine
    from spurbench.studies.ablation.ablate import ablate as run_ablation
    from spurbench.studies.ablation.report import render_markdown

    chosen = open_engine(
        engine,
        units=len(request.classes),
        device=str(request.device),
        workers=workers,
        address=address,
        options=engine_options,
    )
    click.echo(render_markdown(run_ablation(request, chosen)))
    say(f"Wrote ablation.json, ablation.md, ablation.png, samples.png to {request.output}")
