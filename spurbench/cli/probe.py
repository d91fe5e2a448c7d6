"""`spurbench probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spurbench.cli.options import (
    FOLDER,
    GIVEN_FOLDER,
    classifier_options,
    device_option,
    split_option,
)
from spurbench.cli.terminal import say, silence_libraries


@click.command()
@click.argument("dataset")
@classifier_options
@split_option
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Only the first images of each class and split, by sha256.",
)
@click.option(
    "--store",
    type=GIVEN_FOLDER,
    help="Stage store of the dataset's build, whose generators are asked for the recipe's "
    "`probe.prompts`. [default: .stages/NAME beside the dataset, if it is there]",
)
@click.option("--recipe", help="The dataset's recipe, with the prompts. [default: by its name]")
@click.option("--no-prompts", is_flag=True, help="Edit images, and sample none anew.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of edits.")
@click.option(
    "--images",
    "pictured",
    type=click.IntRange(1, 5),
    default=1,
    show_default=True,
    help="Of each class in the picture, the first by their sha256.",
)
@click.option(
    "--output",
    type=FOLDER,
    default=Path("out/probe"),
    show_default=True,
)
@device_option
def probe(
    dataset: str,
    specs: tuple[str, ...],
    panel_file: Path | None,
    split: Any,
    limit: int | None,
    store: Path | None,
    recipe: str | None,
    no_prompts: bool,
    seed: int,
    pictured: int,
    output: Path,
    device: str,
) -> None:
    """What makes the feature spurious in the images of DATASET, its colour, shape or texture?

    Images are edited, one aspect at a time (hue, patches, blur, ...), and sampled anew of other
    prompts; classifiers are asked again. DATASET is what eval takes as --data.
    """
    silence_libraries()
    from spurbench.core.environment import choose_device
    from spurbench.evaluation.members import members
    from spurbench.images.sources import open_images

    asked = members(specs, panel_file, None)
    chosen = choose_device(device)
    images = open_images(dataset)

    from spurbench.studies.probe.probe import ProbeRequest
    from spurbench.studies.probe.probe import probe as run_probe
    from spurbench.studies.probe.prompts import Generators
    from spurbench.studies.probe.tables import render_markdown

    generators = None if no_prompts else Generators.find(dataset, store, recipe, chosen)
    request = ProbeRequest(
        images=images,
        split=None if split == "all" else split,
        limit=limit,
        classifiers=asked,
        output=output,
        generators=generators,
        seed=seed,
        device=chosen,
        pictured=pictured,
    )
    found, written = run_probe(request)
    click.echo(render_markdown(found), nl=False)
    for file in written:
        say(str(file))
