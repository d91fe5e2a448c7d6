"""`spurbench mend`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from spurbench.cli.options import device_option
from spurbench.cli.terminal import say, silence_libraries
from spurbench.core.errors import SpurbenchError
from spurbench.images.records import Split

METHODS = ("spufix", "last-layer", "fine-tune")


@click.command()
@click.option("--model", "spec", required=True, metavar="SPEC", help="Of timm, as in eval.")
@click.option("--method", required=True, type=click.Choice(METHODS))
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The mended classifier's folder, for eval --model.",
)
@click.option(
    "--discovery",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="spufix: what `spurbench discover` wrote, of this classifier or another.",
)
@click.option(
    "--pairs",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="spufix: the classes.toml of `spurbench discover export`: which components.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="last-layer, fine-tune: images that show their classes, in ImageNet's layout.",
)
@click.option(
    "--spurious",
    metavar="DATA",
    help="last-layer, fine-tune: images of spurious features alone. [default: none, classes are "
    "balanced and nothing else]",
)
@click.option(
    "--split",
    type=click.Choice(get_args(Split)),
    default="generated",
    show_default=True,
    help="Of --spurious.",
)
@click.option("--per-class", type=click.IntRange(min=1), help="Spurious images of a class at most.")
@click.option(
    "--weight",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="last-layer, fine-tune: of the spurious images' loss.",
)
@click.option(
    "--without",
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=0.05,
    show_default=True,
    help="last-layer, fine-tune: share of a class's images that is taken to lack its feature.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@device_option
def mend(
    spec: str,
    method: str,
    output: Path,
    discovery: Path | None,
    pairs: Path | None,
    images: Path | None,
    spurious: str | None,
    split: Split,
    per_class: int | None,
    weight: float,
    without: float,
    seed: int,
    device: str,
) -> None:
    """Make a classifier rely less on spurious features, and write it to a folder."""
    if method == "spufix" and (discovery is None or pairs is None):
        raise SpurbenchError("spufix needs --discovery and --pairs: which components are spurious")
    if method != "spufix" and images is None:
        raise SpurbenchError(f"{method} needs --images: the classes' own training images")
    silence_libraries()
    from spurbench.core.environment import choose_device
    from spurbench.mitigation import folder
    from spurbench.mitigation import mend as mending
    from spurbench.mitigation.training import FineTuning, LastLayer

    classifier = folder.load(spec, choose_device(device))
    if method == "spufix":
        assert discovery is not None and pairs is not None
        done = mending.spufixed(classifier, discovery, mending.components_of(pairs), output)
        for one in done["components"]:
            say(
                f"{one['class']}, component {one['component']}: correlation with the discovery's "
                f"{one['correlation']:.3f}"
            )
    else:
        assert images is not None
        given = mending.Trainings(images, spurious, split, per_class)
        kind = LastLayer if method == "last-layer" else FineTuning
        settings = kind(weight=weight, without=without)
        mending.trained(classifier, given, settings, output, seed=seed)
    say(f"Wrote {output}")
    say(f"Measure it: spurbench eval --model {output}")
