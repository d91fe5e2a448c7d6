"""Commands of the embedded planted world."""

from __future__ import annotations

from pathlib import Path

import click

from spurbench.cli.options import FILE, FOLDER, device_option
from spurbench.cli.planted import TRUTHS
from spurbench.cli.terminal import say, silence_libraries


@click.group()
def mini() -> None:
    """The embedded planted world: look at it, render from it, measure its models."""


for command in TRUTHS:
    mini.add_command(command)


@mini.command()
@click.argument("output", type=FILE)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def preview(output: Path, seed: int) -> None:
    """Write a labelled contact sheet of the world to OUTPUT (PNG)."""
    from spurbench.mini.preview import write_preview

    write_preview(output, seed)
    say(str(output))


@mini.command()
@click.argument("output", type=FOLDER)
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
@click.argument("output", type=FOLDER)
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
@click.argument("output", type=FILE)
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
@click.argument("output", type=FOLDER)
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
    type=FOLDER,
    help="The world's autoencoder. [default: the embedded one, which all worlds share]",
)
@click.option(
    "--work",
    type=FOLDER,
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
@click.argument("output", type=FILE)
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
