"""`spurbench report`."""

from __future__ import annotations

from pathlib import Path

import click

from spurbench.cli.options import FOLDER, GIVEN_FILE, GIVEN_FOLDER, device_option
from spurbench.cli.terminal import say, silence_libraries


@click.command()
@click.argument("dataset", type=GIVEN_FOLDER)
@click.option(
    "--results",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Results of eval on it: JSONs, or folders of them; repeatable.",
)
@click.option(
    "--ablation",
    type=GIVEN_FILE,
    help="An ablation.json, for its table.",
)
@click.option(
    "--probe",
    type=GIVEN_FILE,
    help="A probe.json of this dataset, for its tables and its picture.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="Quality metric that pyiqa knows; repeatable. [default: the dataset's, else piqe]",
)
@click.option(
    "--images",
    type=click.IntRange(1, 20),
    default=5,
    show_default=True,
    help="Of each class in the figures, the first by their sha256.",
)
@click.option(
    "--detector",
    help="Who says whether contexts show: a folder, or owlv2:HUB_ID. [default: the recipe's]",
)
@click.option(
    "--output",
    type=FOLDER,
    default=Path("out/report"),
    show_default=True,
)
@device_option
def report(
    dataset: Path,
    results: tuple[Path, ...],
    ablation: Path | None,
    probe: Path | None,
    metrics: tuple[str, ...],
    images: int,
    detector: str | None,
    output: Path,
    device: str,
) -> None:
    """Write the paper's tables and figures for a DATASET: a page, CSV, LaTeX, SVG and PNG."""
    silence_libraries()
    from spurbench.core.environment import choose_device
    from spurbench.studies.report.report import report as write_report

    written = write_report(
        dataset,
        results,
        output,
        ablation=ablation,
        probe=probe,
        metrics=metrics,
        images=images,
        detector=detector,
        device=choose_device(device),
    )
    for file in written:
        say(str(file))
