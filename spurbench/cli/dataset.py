"""Commands on finished datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from spurbench.cli.options import FILE, FOLDER, GIVEN_FOLDER, device_option, split_option
from spurbench.cli.tables import show
from spurbench.cli.terminal import say, silence_libraries
from spurbench.core.errors import SpurbenchError

if TYPE_CHECKING:
    from spurbench.dataset.rows import Config


@click.command()
@click.argument("dataset", type=GIVEN_FOLDER)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="pyiqa metric; repeatable. [default: the dataset's own]",
)
@device_option
def quality(dataset: Path, metrics: tuple[str, ...], device: str) -> None:
    """Fill in the image quality columns that were null when a dataset was built."""
    from spurbench.core.environment import choose_device
    from spurbench.dataset.manifest import Manifest

    Manifest.read(dataset)  # what is no dataset is named before anything heavy is imported
    chosen = choose_device(device)

    from spurbench.dataset.quality import fill_quality

    for metric, count in fill_quality(dataset, metrics, chosen).items():
        say(f"{metric}: {count} scores filled in")


@click.command()
@click.argument("dataset", type=GIVEN_FOLDER)
def verify(dataset: Path) -> None:
    """Check a dataset: hashes, counts, schema, card, and that it loads as its card says.

    The exit status is 1 if any check fails.
    """
    from rich.table import Table
    from rich.text import Text

    silence_libraries()

    from spurbench.dataset.verify import verify as run_checks

    checks = run_checks(dataset)
    table = Table(show_header=False)
    for check in checks:
        colour = {"ok": "green", "skipped": "yellow", "fail": "red"}[check.status]
        table.add_row(Text(check.status, colour), check.name, check.detail)
    show(table)
    failed = [check.name for check in checks if check.status == "fail"]
    if failed:
        raise SpurbenchError(f"{dataset} fails: {', '.join(failed)}")
    if skipped := [f"{check.name} ({check.hint})" for check in checks if check.status == "skipped"]:
        raise SpurbenchError(f"{dataset} passes but for what was skipped: {', '.join(skipped)}")


@click.command()
@click.argument("dataset", type=GIVEN_FOLDER)
@click.option("--repo-id", required=True, metavar="OWNER/NAME", help="On the hub.")
@click.option("--private", is_flag=True, help="Not public.")
@click.option("--dry-run", is_flag=True, help="Print the operations; change nothing.")
def push(dataset: Path, repo_id: str, private: bool, dry_run: bool) -> None:
    """Publish a dataset on the Hugging Face hub, tagged vX.Y.Z.

    It is verified first. The same command goes on after an interruption. A published version is
    never changed. The token is taken from HF_TOKEN or the saved login.
    """
    silence_libraries()

    from spurbench.dataset.manifest import Manifest

    Manifest.read(dataset)  # what is no dataset is named before anything heavy is imported

    from spurbench.dataset.push import push as run_push

    publication = run_push(dataset, repo_id, private=private, dry_run=dry_run)
    if dry_run or publication.published:
        for line in publication.lines():
            say(line)
    else:
        say(f'Published. Load it: load_dataset("{repo_id}", revision="{publication.tag}")')


@click.command()
@click.argument("old", type=GIVEN_FOLDER)
@click.argument("new", type=GIVEN_FOLDER)
@click.option("--json", "output", type=FILE, help="Also write JSON.")
def diff(old: Path, new: Path, output: Path | None) -> None:
    """Say what changed from dataset OLD to dataset NEW, per class."""
    from spurbench.core import atomic
    from spurbench.dataset import diff
    from spurbench.dataset.manifest import read_snapshot

    difference = diff.compare(read_snapshot(old), read_snapshot(new))
    show(*diff.to_tables(difference))
    if output is not None:
        atomic.write_json(output, difference.as_json())
        say(str(output))


@click.command()
@click.argument("dataset", type=GIVEN_FOLDER)
@click.option(
    "--format",
    "layout",
    type=click.Choice(["imagefolder", "webdataset"]),
    required=True,
    help="Folders SPLIT/WNID with metadata.parquet, or tar shards.",
)
@click.option("--output", type=FOLDER, required=True, help="New folder.")
@click.option(
    "--config",
    type=click.Choice(
        ["default", "curated", "positives", "controls", "controls-finetuned", "contexts"]
    ),
    default="default",
    show_default=True,
    help="Whose images.",
)
@split_option
def export(
    dataset: Path,
    layout: Literal["imagefolder", "webdataset"],
    output: Path,
    config: Config,
    split: Literal["real", "generated", "all"],
) -> None:
    """Write a dataset's images in a layout that other tools take, as they are.

    The positives' imagefolder is what `spurbench eval --positives OUTPUT/SPLIT` takes.
    """
    silence_libraries()

    from spurbench.dataset.export import export as run_export

    for name, count in run_export(dataset, output, layout, config=config, split=split).items():
        say(f"{name}: {count} images")
    say(str(output))
