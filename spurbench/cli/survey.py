"""`spurbench survey`: how natural people find the images."""

from __future__ import annotations

from pathlib import Path

import click

from spurbench.cli.options import FOLDER
from spurbench.cli.terminal import say, silence_libraries


@click.group()
def survey() -> None:
    """Ask people how natural real and generated images look.

    \b
    spurbench survey make DATASET     a folder: design, links, pages that need no server
    spurbench survey serve FOLDER     a page for each link; answers go to FOLDER/answers.sqlite
    spurbench survey report FOLDER    grades by source, intervals, agreement; JSON, tables, figure
    """


@survey.command(name="make")
@click.argument("dataset")
@click.option(
    "--output",
    type=FOLDER,
    help="A new folder. [default: out/survey-DATASET]",
)
@click.option("--raters", type=click.IntRange(1, 10_000), default=10, show_default=True)
@click.option(
    "--images",
    type=click.IntRange(2),
    default=10,
    show_default=True,
    help="Of each class, half of them real.",
)
@click.option(
    "--classes", default="all", show_default=True, help="Names or ImageNet indices, by comma."
)
@click.option(
    "--repeats",
    type=click.IntRange(0),
    help="Images that a rater sees twice, as a check. [default: one in ten, at least 5]",
)
@click.option(
    "--apart",
    type=click.IntRange(0, 4),
    default=1,
    show_default=True,
    help="Stars that the two grades of one image may be apart.",
)
@click.option("--contact", default="", help="Who asks, and how to reach them; raters are told.")
@click.option(
    "--address",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="Where raters will reach the server, for their links.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of which images."
)
@click.option("--zip", "zipped", is_flag=True, help="Also a zip a rater, to send without a server.")
def make_survey(
    dataset: str,
    output: Path | None,
    raters: int,
    images: int,
    classes: str,
    repeats: int | None,
    apart: int,
    contact: str,
    address: str,
    seed: int,
    zipped: bool,
) -> None:
    """Draw images of DATASET, an order for each rater, and make their pages.

    DATASET is a folder of `spurbench build` or a hub dataset id.
    """
    silence_libraries()

    from spurbench.studies.survey.make import SurveyRequest, make

    request = SurveyRequest(
        data=dataset,
        output=output or Path("out") / f"survey-{Path(dataset).name}",
        raters=raters,
        images_per_class=images,
        classes=classes,
        repeats=repeats,
        apart=apart,
        contact=contact,
        address=address,
        seed=seed,
        zipped=zipped,
    )
    made = make(request)
    repeated = made.attention.repeats
    say(f"{len(made.items)} images, {repeated} of them twice; {raters} raters: {request.output}")
    say(f"Links: {request.output / 'links.csv'} (one a rater, for nobody else's eyes)")
    say(f"Next:  spurbench survey serve {request.output}, or send the pages in its folder static")


@survey.command(name="serve")
@click.argument("folder", type=FOLDER)
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 is every network.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
def serve_survey(folder: Path, host: str, port: int) -> None:
    """Serve the survey in FOLDER; extra `serve`.

    It may be killed and started again at any time: what raters were told is saved, is.
    """
    from spurbench.studies.survey.server import serve

    def ready(address: str, raters: int) -> None:
        say(f"{raters} raters, links in {folder / 'links.csv'}; listening at {address}")

    serve(folder, host, port, ready)


@survey.command(name="report")
@click.argument("folder", type=FOLDER)
@click.argument("answers", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=FOLDER,
    help="[default: FOLDER/report]",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap."
)
def report_survey(folder: Path, answers: tuple[Path, ...], output: Path | None, seed: int) -> None:
    """Say what raters found: of the server's answers, and of ANSWERS, files that raters sent."""
    from spurbench.studies.survey.report import render_markdown, report

    target = output or folder / "report"
    click.echo(render_markdown(report(folder, answers, target, seed=seed)))
    say(f"Wrote report.json, report.md, grades.svg, grades.png to {target}")
