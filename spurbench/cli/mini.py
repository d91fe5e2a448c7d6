"""Commands of the embedded planted world."""

from __future__ import annotations

from pathlib import Path

import click

from spurbench.cli.options import device_option
from spurbench.cli.terminal import say, silence_libraries


@click.group()
def mini() -> None:
    """The embedded planted world: look at it, render from it, measure its models."""


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def preview(output: Path, seed: int) -> None:
    """Write a labelled contact sheet of the world to OUTPUT (PNG)."""
    from spurbench.mini.preview import write_preview

    write_preview(output, seed)
    say(str(output))


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--images", type=click.IntRange(min=1), default=50, show_default=True, help="Per class."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def positives(output: Path, images: int, seed: int) -> None:
    """Render images that truly show the classes, for eval --positives."""
    from spurbench.mini.preview import write_positives

    write_positives(output, images, seed)
    say(str(output))


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--images", type=click.IntRange(min=1), default=300, show_default=True, help="Per class."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="0: those that the panel was trained on.",
)
@click.option(
    "--classes",
    "wanted",
    default="all",
    show_default=True,
    help="all, or names and indices: valley (scenes without an object).",
)
def training(output: Path, images: int, seed: int, wanted: str) -> None:
    """Render biased scenes as the panel was trained on, for discover --images."""
    from spurbench.core.imagenet import imagenet_names
    from spurbench.mini.distributions import CLASSES
    from spurbench.mini.preview import write_training
    from spurbench.recipe.classes import choose

    indices = {imagenet_names().index(name): name for name in CLASSES}
    chosen = (
        [*indices]
        if wanted == "all"
        else choose(wanted, indices, f"there are {', '.join(CLASSES)}")
    )
    write_training(output, images, seed, [indices[index] for index in chosen])
    say(str(output))


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--scenes",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Held-out scenes per class.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Of the base model, per prompt.",
)
@click.option(
    "--attacked",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Images under AutoAttack; 0: none.",
)
@device_option
def measure(output: Path, scenes: int, samples: int, attacked: int, device: str) -> None:
    """Measure the embedded models on fresh scenes; writes OUTPUT (JSON)."""
    silence_libraries()

    from spurbench.core import atomic
    from spurbench.core.environment import choose_device

    chosen = choose_device(device)

    from spurbench.mini import measure as measuring

    measured = measuring.measure(scenes=scenes, samples=samples, attacked=attacked, device=chosen)
    atomic.write_json(output, measured)
    click.echo(measuring.render_markdown(measured))


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--model", "specs", multiple=True, help="As of spurbench eval; may be repeated.")
@click.option(
    "--scenes", type=click.IntRange(min=3), default=500, show_default=True, help="Per class."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of them.")
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


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--settings",
    default="zoo",
    show_default=True,
    help="zoo, board (the leaderboard's further classifiers), or a TOML file like theirs.",
)
@click.option(
    "--world", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the scenes."
)
@click.option(
    "--vae",
    type=click.Path(path_type=Path, file_okay=False),
    help="The world's autoencoder. [default: the embedded one, which all worlds share]",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out/.stages"),
    show_default=True,
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Processes, of one thread each.",
)
@device_option
def zoo(
    output: Path, settings: str, world: int, vae: Path | None, work: Path, jobs: int, device: str
) -> None:
    """Train classifiers that have no part in any image, into folders in OUTPUT.

    A stopped training goes on where it was.
    """
    silence_libraries()

    from spurbench.core.environment import choose_device
    from spurbench.mini.training import board

    accuracy = board.train_board(
        output,
        work,
        board.BoardSettings.read(settings),
        world,
        choose_device(device),
        vae_folder=vae,
        jobs=jobs,
    )
    for name, value in accuracy.items():
        say(f"{output / name}: right on {100 * value:.1f} % of held-out scenes")


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--scenes",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Per class: that set the limit, and as many to judge.",
)
@click.option(
    "--doctored",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Copies of each reference, of every kind.",
)
@device_option
def copies(output: Path, scenes: int, doctored: int, device: str) -> None:
    """Calibrate the copy detector on fresh scenes and test it; writes OUTPUT (JSON)."""
    silence_libraries()

    from spurbench.core import atomic
    from spurbench.core.environment import choose_device

    chosen = choose_device(device)

    from spurbench.mini.copies import measure_copies, render_markdown

    measured = measure_copies(scenes=scenes, doctored=doctored, device=chosen)
    atomic.write_json(output, measured)
    click.echo(render_markdown(measured))


@mini.command()
@click.argument("discovery", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
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


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--model", "specs", multiple=True, help="As of spurbench eval; may be repeated.")
@click.option(
    "--scenes", type=click.IntRange(min=10), default=200, show_default=True, help="Per class."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of them.")
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


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--model", "specs", multiple=True, help="As of spurbench eval; may be repeated.")
@click.option(
    "--scenes", type=click.IntRange(min=1), default=200, show_default=True, help="Per class."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of them.")
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


@mini.command()
@click.argument("discovery", type=click.Path(path_type=Path, exists=True, file_okay=False))
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


@mini.command()
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
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="What `mini training` wrote: scenes that the classifiers were trained on.",
)
@click.option("--data", required=True, help="Dataset of build: what is not the class.")
@click.option(
    "--discovery",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="spufix: as in mend.",
)
@click.option(
    "--pairs",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
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
    type=click.Path(path_type=Path, file_okay=False),
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
