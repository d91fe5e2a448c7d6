"""Commands that ask classifiers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spurbench.cli.options import (
    FILE,
    FOLDER,
    classifier_options,
    device_option,
    engine_options,
    split_option,
)
from spurbench.cli.tables import contrast_tables, show
from spurbench.cli.terminal import say, say_json
from spurbench.core.errors import SpurbenchError

if TYPE_CHECKING:
    from spurbench.evaluation.evaluate import Failed
    from spurbench.evaluation.results import Result

log = logging.getLogger(__name__)


@click.command(name="eval")
@classifier_options
@click.option(
    "--data",
    help="Spurious ImageNet folder, folder in ImageNet's layout, built dataset or hub id. "
    "[default: SPURBENCH_DATA, what fetch got, or the newest datasets in out]",
)
@split_option
@click.option(
    "--config",
    type=click.Choice(["default", "curated"]),
    default="default",
    show_default=True,
    help="Of a built dataset. curated: the images that fool its whole panel and show no object.",
)
@click.option(
    "--protocol",
    type=click.Choice(["spurbench", "neuhaus"]),
    default="spurbench",
    show_default=True,
    help="neuhaus: as the authors of Spurious ImageNet measure; every image counts, positives "
    "are resized to 256/224 of the input and cropped.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="Local weights of an architecture of timm, torchvision or open_clip (safetensors, or "
    "torch weights).",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="What the model's outputs stand for: a label a line (WordNet ids, names or indices of "
    "ImageNet-1k), or JSON.",
)
@click.option(
    "--positives",
    type=click.Path(path_type=Path),
    help="Images that truly show the classes (ImageNet layout), instead of the dataset's own: "
    "recognition and AUROC.",
)
@click.option(
    "--preprocess",
    type=click.Choice(["whole", "model"]),
    default="whole",
    show_default=True,
    help="whole: short side to the input size, bicubic, centre crop, as the authors of Spurious "
    "ImageNet do; model: the model's own evaluation transform.",
)
@click.option(
    "--output",
    type=FOLDER,
    default=Path("out/results"),
    show_default=True,
    help="Folder of results.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="[default: by the device]")
@click.option(
    "--decoders",
    type=click.IntRange(min=0),
    help="Threads that decode while a classifier runs. [default: one a core, 8 at most; of "
    "several workers on a CPU, one each]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Only the first images of each class, by sha256: a quick look, which is stored as one.",
)
@click.option("--force", is_flag=True, help="Measure again even if an unchanged result is stored.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as a JSON list, no more.")
@engine_options
@device_option
def evaluate(
    specs: tuple[str, ...],
    panel_file: Path | None,
    data: str | None,
    split: Any,
    config: Any,
    protocol: Any,
    checkpoint: Path | None,
    labels: Path | None,
    positives: Path | None,
    preprocess: Any,
    output: Path,
    batch_size: int | None,
    decoders: int | None,
    limit: int | None,
    force: bool,
    as_json: bool,
    engine: Any,
    workers: int | None,
    address: str | None,
    engine_options: Path | None,
    device: str,
) -> None:
    """Measure classifiers' spurious accuracy, real and generated.

    Without --data it is measured on what is at hand. Classifiers, and the images of one, are shared
    out among workers where there is enough to do; one that fails does not stop the others.
    """
    from spurbench.evaluation.display import results_sheets
    from spurbench.evaluation.evaluate import Failed, evaluate_each
    from spurbench.evaluation.members import members
    from spurbench.evaluation.request import RequestSource
    from spurbench.evaluation.spread import Spread
    from spurbench.images.at_hand import AtHand, at_hand

    note = log.info if as_json else say
    asked = members(specs, panel_file, checkpoint, labels)
    results: list[Result] = []
    failed: list[Failed] = []
    known: set[str] = set()
    for place in [AtHand(data)] if data is not None else at_hand(split, config):
        if place.why:
            log.info("measuring on %s: %s", place.data, place.why)
        source = RequestSource(
            data=place.data,
            split=split,
            config=config,
            positives=positives,
            limit=limit,
            preprocess=preprocess,
            protocol=protocol,
            batch_size=batch_size,
            decoders=decoders,
        )
        request = source.open()
        here: list[Result] = []
        spread = Spread(
            source,
            request,
            output,
            device=device,
            force=force,
            engine=engine,
            workers=workers,
            address=address,
            options=engine_options,
        )
        outcomes = evaluate_each(asked, request, output, force=force, spread=spread)
        for member, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, Failed):
                failed.append(outcome)
                continue
            if not here:
                for damaged in outcome.result.damaged:
                    say(f"left out, damaged: {damaged.path} ({damaged.reason})", error=True)
            here.append(outcome.result)
            known.add(member.asked)
            if len(asked) == 1 and not as_json:
                show(outcome.result)
            again = " (stored result of the same measurement; --force repeats it)"
            note(f"{outcome.path}{again if outcome.stored else ''}")
        if len(asked) > 1 and here and not as_json:
            show(*results_sheets(here))
        results += here
    if as_json:
        say_json([result.model_dump(mode="json", by_alias=True) for result in results])
    _end(len(asked), failed, known)


def _end(asked: int, failed: list[Failed], known: set[str]) -> None:
    """Say what could not be measured, if anything that should have been.

    Of several datasets at hand, a classifier is measured on those whose classes it has.
    """
    affected: dict[str, list[str]] = {}
    for failure in failed:
        if failure.lacks_class and failure.asked in known:
            log.info("left out: %s", failure.reason)
        else:
            affected.setdefault(failure.reason, []).append(failure.asked)
    if not affected:
        return
    if asked == 1:
        raise SpurbenchError(next(iter(affected)))
    for reason, classifiers in affected.items():
        say(f"failed: {', '.join(dict.fromkeys(classifiers))}: {reason}", error=True)
    count = len({classifier for classifiers in affected.values() for classifier in classifiers})
    raise SpurbenchError(
        f"{count} of {asked} classifiers failed; "
        "the others' results are kept, the same command measures only what is missing"
    )


@click.command()
@click.option(
    "--data",
    required=True,
    help="Folder of real images in the Spurious ImageNet layout.",
)
@click.option(
    "--panel",
    "specs",
    multiple=True,
    required=True,
    metavar="SPEC[=CHECKPOINT]",
    help="A classifier as in eval --model, with local weights after '='; repeat for each.",
)
@click.option(
    "--classes",
    "wanted",
    default="all",
    show_default=True,
    help="all, or the data's classes by name or ImageNet index, separated by commas.",
)
@click.option("--output", type=FILE, help="Write the answers as JSON.")
@device_option
def select(
    data: str, specs: tuple[str, ...], wanted: str, output: Path | None, device: str
) -> None:
    """List the images that every classifier of a panel calls their class."""
    from rich.table import Table
    from rich.text import Text

    from spurbench.core import atomic
    from spurbench.core.environment import choose_device
    from spurbench.core.markdown import plain
    from spurbench.evaluation.members import Member
    from spurbench.images.sources import open_images
    from spurbench.recipe.classes import choose

    for spec in specs:
        Member.parse(spec)  # a missing checkpoint is named before anything is imported or read
    images = open_images(data, "real")
    names = {record.class_index: record.class_name for record in images.records}
    listed = f"the data has {', '.join(names.values())}"
    chosen = sorted(names) if wanted == "all" else choose(wanted, names, listed)
    records = [record for record in images.records if record.class_index in set(chosen)]

    from spurbench.evaluation import panel

    classifiers = panel.load_panel(specs, relative_to=Path(), device=choose_device(device))
    selected = panel.select(classifiers, records)
    table = Table(
        title=Text(
            "Consistently spurious: called the class by "
            + ", ".join(plain(classifier.info.name) for classifier in classifiers)
        ),
        title_justify="left",
    )
    for heading in ("class", "of", "consistently spurious", "images (surest first)"):
        table.add_column(heading)
    for index in chosen:
        total = sum(record.class_index == index for record in records)
        found = [Path(choice.path).name for choice in selected if choice.class_index == index]
        cells = (names[index], str(total), str(len(found)), ", ".join(found))
        # Text, not str: names from outside may hold what rich would take for markup.
        table.add_row(*(Text(plain(cell)) for cell in cells))
    show(table)
    say(f"{len(selected)} of {len(records)} images are consistently spurious")
    for damaged in images.damaged:
        say(f"left out, damaged: {damaged.path} ({damaged.reason})", error=True)
    if output is not None:
        atomic.write_json(output, [choice.as_json() for choice in selected])
        say(str(output))


@click.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option("--data", help="Dataset that was measured, as in eval: adds a sheet of the images.")
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    help="How many of the images on which they differ most.",
)
@click.option(
    "--output",
    type=FOLDER,
    default=Path("out/comparison"),
    show_default=True,
    help="Folder of comparison.json and images.png.",
)
def compare(a: Path, b: Path, data: str | None, images: int, output: Path) -> None:
    """Compare two results, image by image; B minus A: below 0, B is fooled less."""
    from spurbench.evaluation import compare as comparing
    from spurbench.evaluation.results import Result

    comparison = comparing.compare(Result.read(a), Result.read(b), images=images)
    for split in comparison.splits:
        show(*contrast_tables(comparison, split))
    for path in comparing.write(comparison, output, data):
        say(str(path))
