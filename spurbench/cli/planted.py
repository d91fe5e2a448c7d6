"""Commands of the planted world that need its truth: what a scene would be without its feature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from spurbench.cli.options import FILE, FOLDER, GIVEN_FILE, GIVEN_FOLDER, device_option
from spurbench.cli.terminal import say, silence_libraries


def truth_options(
    *, scenes: int, least: int
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Who is asked about rendered scenes, and which: ``specs``, ``scenes`` and ``seed``."""
    options = (
        click.option(
            "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of them."
        ),
        click.option(
            "--scenes",
            type=click.IntRange(least),
            default=scenes,
            show_default=True,
            help="Per class.",
        ),
        click.option(
            "--model", "specs", multiple=True, help="As of spurbench eval; may be repeated."
        ),
    )

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in options:
            command = option(command)
        return command

    return add


@click.command()
@click.argument("output", type=FILE)
@truth_options(scenes=500, least=3)
@device_option
def reliance(output: Path, specs: tuple[str, ...], scenes: int, seed: int, device: str) -> None:
    """Measure how much classifiers truly rely on the planted features; writes OUTPUT (JSON).

    Fresh object-free scenes are rendered with the feature, without it, and with another sub-family
    of its kind. Reliance is how much more often the class is answered with it than without it.
    """
    silence_libraries()

    from spurbench.core import atomic
    from spurbench.core.environment import choose_device
    from spurbench.evaluation.members import members

    asked = members(specs, None, None)
    chosen = choose_device(device)

    from spurbench.mini import reliance as truth

    report = truth.measure_reliance(asked, scenes=scenes, seed=seed, device=chosen)
    atomic.write_json(output, report.as_json())
    click.echo(truth.render_markdown(report), nl=False)


@click.command()
@click.argument("discovery", type=GIVEN_FOLDER)
@click.argument("output", type=FILE)
@click.option(
    "--scenes",
    type=click.IntRange(min=2),
    default=200,
    show_default=True,
    help="Object-free ones, and as many with the object alone, per class.",
)
@device_option
def components(discovery: Path, output: Path, scenes: int, device: str) -> None:
    """Measure how well components that discover found separate feature from object (AUROC)."""
    silence_libraries()

    from spurbench.core import atomic
    from spurbench.core.environment import choose_device

    chosen = choose_device(device)

    from spurbench.mini import components as measuring

    measured = measuring.separation(discovery, scenes=scenes, device=chosen)
    atomic.write_json(output, measured)
    click.echo(measuring.render_markdown(measured))


@click.command()
@click.argument("discovery", type=GIVEN_FOLDER)
@click.option(
    "--scenes",
    type=click.IntRange(min=2),
    default=200,
    show_default=True,
    help="Object-free ones, and as many with the object alone, per class.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the scenes that `mini training` wrote.",
)
@device_option
def supervise(discovery: Path, scenes: int, seed: int, device: str) -> None:
    """Label DISCOVERY as people do with `discover supervise`, from the planted truth.

    A component is spurious where it separates object-free scenes with the class's feature from
    scenes with the object alone at AUROC 0.9 or better; boxes lie exactly around the object.
    """
    silence_libraries()

    from spurbench.core.environment import choose_device

    chosen = choose_device(device)

    from spurbench.mini import supervise as supervising

    for of in supervising.supervise(discovery, scenes=scenes, training_seed=seed, device=chosen):
        shown = ", ".join(f"{number} (AUROC {of.aurocs[number - 1]:.2f})" for number in of.spurious)
        say(f"{of.name}: spurious: {shown or 'none'}; object boxed in {of.boxed} images")


@click.command()
@click.argument("output", type=FILE)
@truth_options(scenes=200, least=10)
@device_option
def probe(output: Path, specs: tuple[str, ...], scenes: int, seed: int, device: str) -> None:
    """Hold the edits of spurbench probe against exact ones; writes OUTPUT (JSON).

    Scenes are rendered again with the feature alone recoloured, flattened or reshaped. Which
    answers that changes is the truth; the probe's edits see the image and its twin.
    """
    silence_libraries()

    from spurbench.core import atomic
    from spurbench.core.environment import choose_device
    from spurbench.evaluation.members import members

    asked = members(specs, None, None)
    chosen = choose_device(device)

    from spurbench.studies.probe import truth

    measured = truth.measure_truth(asked, scenes=scenes, seed=seed, device=chosen)
    atomic.write_json(output, measured.as_json())
    click.echo(truth.render_markdown(measured), nl=False)


@click.command()
@click.argument("output", type=FILE)
@truth_options(scenes=200, least=1)
@device_option
def contexts(output: Path, specs: tuple[str, ...], scenes: int, seed: int, device: str) -> None:
    """What places truly do to answers, and whether the oracle sees them; writes OUTPUT (JSON).

    Scenes of a feature are rendered nowhere in particular and in each of the paper's four places,
    the same in all else that shows the feature.
    """
    silence_libraries()

    from spurbench.core import atomic
    from spurbench.core.environment import choose_device
    from spurbench.evaluation.members import members
    from spurbench.recipe.load import read_recipe

    asked = members(specs, None, None)
    chosen = choose_device(device)
    recipe = read_recipe("mini")

    from spurbench.classifiers.detectors import load_detector
    from spurbench.studies.contexts import truth

    oracle = load_detector(recipe.locate(str(recipe.check.object_detector)), device=chosen)
    measured = truth.measure_truth(asked, oracle, scenes=scenes, seed=seed, device=chosen)
    atomic.write_json(output, measured.as_json())
    click.echo(truth.render_markdown(measured), nl=False)


@click.command()
@click.option(
    "--model",
    "specs",
    multiple=True,
    metavar="SPEC",
    help="Of the panel; repeatable. [default: all of it]",
)
@click.option(
    "--unseen",
    multiple=True,
    metavar="SPEC",
    help="A classifier that had no part in any image; repeatable.",
)
@click.option(
    "--images",
    type=GIVEN_FOLDER,
    required=True,
    help="What `mini training` wrote: scenes that the classifiers were trained on.",
)
@click.option("--data", required=True, help="Dataset of build: what is not the class.")
@click.option(
    "--discovery",
    type=GIVEN_FOLDER,
    help="spufix: as in mend.",
)
@click.option(
    "--pairs",
    type=GIVEN_FILE,
    help="spufix: as in mend.",
)
@click.option(
    "--rows",
    "wanted_rows",
    default="",
    help="By comma: spufix, METHOD-none, METHOD-SOURCE-NUMBER. [default: those of docs/mend.md]",
)
@click.option(
    "--scenes", type=click.IntRange(min=2), default=300, show_default=True, help="Per class."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of them.")
@click.option(
    "--output",
    type=FOLDER,
    default=Path("out/mending"),
    show_default=True,
    help="Folder of mended classifiers, answers and tables.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes, of one thread each.",
)
@device_option
def mending(
    specs: tuple[str, ...],
    unseen: tuple[str, ...],
    images: Path,
    data: str,
    discovery: Path | None,
    pairs: Path | None,
    wanted_rows: str,
    scenes: int,
    seed: int,
    output: Path,
    jobs: int,
    device: str,
) -> None:
    """Mend classifiers in many ways, and measure them on fresh scenes before and after.

    The same command goes on after an interruption; of a finished study it works the tables out
    anew. Tables, plots and mended classifiers are written to --output.
    """
    silence_libraries()

    from spurbench.core.environment import choose_device
    from spurbench.studies.mending.plan import ROWS, MendingRequest, Row, embedded_panel

    names = [name.strip() for name in wanted_rows.split(",") if name.strip()] or ROWS
    request = MendingRequest(
        panel=specs or embedded_panel(),
        unseen=unseen,
        rows=[Row.parse(name) for name in dict.fromkeys(names)],
        images=images,
        data=data,
        discovery=discovery,
        pairs=pairs,
        scenes=scenes,
        seed=seed,
        output=output,
        device=choose_device(device),
    )

    from spurbench.studies.mending.report import render_markdown
    from spurbench.studies.mending.study import study

    click.echo(render_markdown(study(request, jobs)), nl=False)
    say(f"Wrote mending.json, mending.md and plots to {output}")


TRUTHS = (reliance, components, supervise, probe, contexts, mending)
