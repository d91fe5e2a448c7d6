"""Commands that make datasets, and show what can be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spurbench.cli.options import (
    FOLDER,
    GIVEN_FOLDER,
    device_option,
    engine_options,
    forecast_options,
    recipe_options,
)
from spurbench.cli.tables import forecast_tables, plan_tables, show, stage_table
from spurbench.cli.terminal import say, silence_libraries
from spurbench.core.errors import SpurbenchError


@click.command()
@click.option(
    "--recipe",
    "recipe_name",
    default="mini",
    show_default=True,
    help="mini (embedded, offline), sd15 (the paper), or a folder with recipe.toml, classes.toml.",
)
@recipe_options
@click.option(
    "--positives",
    type=GIVEN_FOLDER,
    help="Photographs of the classes, in ImageNet's layout. [default: the base model makes them]",
)
@click.option(
    "--replicates",
    default=1,
    show_default=True,
    help="Independently fine-tuned generators of each class.",
)
@click.option("--base", help="Base model: hub id or folder. Short for --set base.model=...")
@click.option(
    "--output",
    type=FOLDER,
    help="Dataset folder. [default: out/spurbench-RECIPE-VERSION]",
)
@click.option(
    "--work",
    type=FOLDER,
    help="Where finished stages are kept. [default: .stages beside the output]",
)
@click.option("--version", "version", metavar="X.Y.Z", help="[default: the recipe's]")
@click.option(
    "--previous",
    type=GIVEN_FOLDER,
    help="The version before: its changelog goes on, and says what changed.",
)
@click.option("--note", help="For the changelog: what is new.")
@click.option("--seed", default=0, show_default=True, help="Global seed.")
@click.option("--force", is_flag=True, help="Start over: make every stage again.")
@click.option("--dry-run", is_flag=True, help="Print the plan and its cost; touch no weights.")
@engine_options
@click.option(
    "--gpus-per-class",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="GPUs that fine-tune one class together.",
)
@forecast_options
@device_option
def build(
    recipe_name: str,
    wanted: str,
    data: Path | None,
    positives: Path | None,
    replicates: int,
    base: str | None,
    overrides: tuple[str, ...],
    output: Path | None,
    work: Path | None,
    version: str | None,
    previous: Path | None,
    note: str | None,
    seed: int,
    force: bool,
    dry_run: bool,
    engine: Any,
    workers: int | None,
    address: str | None,
    engine_options: Path | None,
    gpus_per_class: int,
    gpus: int | None,
    device_tflops: float,
    device_share: float,
    device: str,
) -> None:
    """Fine-tune per class, generate, check, and write a versioned dataset.

    The same command goes on after an interruption. A class that fails does not stop the others;
    the exit status is then 1.
    """
    from spurbench.build.request import BuildRequest

    if gpus is not None and (not dry_run or workers is not None or gpus < gpus_per_class):
        raise SpurbenchError(
            "--gpus plans for GPUs that need not be here: say --dry-run, no --workers, and at "
            f"least --gpus-per-class, {gpus_per_class}"
        )
    request = BuildRequest.of(
        recipe_name,
        classes=wanted,
        data=data,
        overrides=overrides if base is None else (*overrides, f"base.model={base}"),
        output=output,
        work=work,
        version=version,
        previous=previous,
        note=note,
        seed=seed,
        device=device,
        force=force,
        positives=positives,
        replicates=replicates,
        gpus_per_class=gpus_per_class,
        elsewhere=engine != "local",
    )
    recipe, classes, output = request.recipe, request.classes, request.output
    say(
        f"Recipe {recipe.name}: {recipe.description} Classes: {len(classes)}, "
        f"images each: {replicates * recipe.sample.images}, device: {request.device}."
    )
    if recipe_name == "mini" and wanted == "all":
        say(
            f"These are all classes of the embedded recipe mini, {len(classes)}; "
            "--recipe sd15 has the 100 of Spurious ImageNet."
        )
    if dry_run:
        from spurbench.build.forecast import Rate, forecast
        from spurbench.build.plan import plan
        from spurbench.build.units import BuildWork

        rate = Rate(1e12 * device_tflops, device_share)
        planned = plan(recipe, classes, replicates=replicates, make_positives=positives is None)
        show(*plan_tables(planned))
        if gpus is not None:
            workers = gpus // gpus_per_class
        if workers is not None:
            units = BuildWork.of(request).units
            foreseen = forecast(planned, request, units, workers=workers, rate=rate)
            show(*forecast_tables(foreseen, gpus=0 if gpus is None else gpus_per_class))
        return

    silence_libraries()
    from spurbench.build.build import build as run_build
    from spurbench.engines.choose import open_engine

    built = run_build(
        request,
        open_engine(
            engine,
            units=len(request.classes),
            device=str(request.device),
            workers=workers,
            gpus_each=gpus_per_class,
            address=address,
            options=engine_options,
        ),
    )
    show(stage_table(built.seconds))
    if built.failed:
        for name, reason in built.failed.items():
            say(f"failed: {name}: {reason}", error=True)
    if built.complete:
        say(f"{'Wrote' if built.written else 'Unchanged:'} {output}")
        say(f'Load it: datasets.load_dataset("{output.resolve()}")')
    if built.failed:
        raise SpurbenchError(
            f"{len(built.failed)} of {len(classes)} classes failed: {', '.join(built.failed)}; "
            "the same command tries them again, finished stages are kept"
        )


@click.command()
@click.option("--recipe", "recipe_name", default="sd15", show_default=True, help="Whose registry.")
@click.option("--classes", "wanted", default="all", show_default=True, help="As in build.")
def classes(recipe_name: str, wanted: str) -> None:
    """List the (class, spurious feature) pairs."""
    from rich.table import Table

    from spurbench.recipe.load import read_recipe

    recipe = read_recipe(recipe_name)
    table = Table(title=f"{recipe.name}: {recipe.description}", title_justify="left")
    for heading in (
        "index",
        "wnid",
        "class",
        "spurious feature",
        "component",
        "noun",
        "kappa",
        "paper",
    ):
        table.add_column(heading, justify="right" if heading in {"index", "component"} else "left")
    for c in recipe.classes.select(wanted):
        kappa = "" if c.kappa is None else f"{c.kappa:g}"
        table.add_row(
            str(c.index),
            c.wnid,
            c.name,
            c.spurious_feature,
            str(c.component),
            c.noun,
            kappa,
            "yes" if c.paper else "",
        )
    show(table)
