"""Commands of the embedded planted world."""

from __future__ import annotations

from pathlib import Path

import click

from spurbench.cli.options import device_option
from spurbench.cli.tables import silence_libraries


@click.group()
def mini() -> None:
    """The embedded planted world: look at it, render from it, measure its models."""


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seed", default=0, show_default=True)
def preview(output: Path, seed: int) -> None:
    """Write a labelled contact sheet of the world to OUTPUT (PNG)."""
    from spurbench.mini.preview import write_preview

    write_preview(output, seed)
    click.echo(str(output))


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option("--images", type=click.IntRange(1), default=50, show_default=True, help="Per class.")
@click.option("--seed", default=0, show_default=True)
def positives(output: Path, images: int, seed: int) -> None:
    """Render images that truly show the classes, for eval --positives."""
    from spurbench.mini.preview import write_positives

    write_positives(output, images, seed)
    click.echo(str(output))


@mini.command()
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--scenes",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Held-out scenes per class.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Of the base model, per prompt.",
)
@click.option(
    "--attacked",
    type=click.IntRange(0),
    default=200,
    show_default=True,
    help="Images under AutoAttack; 0: none.",
)
@device_option
def measure(output: Path, scenes: int, samples: int, attacked: int, device: str) -> None:
    """Measure the embedded models on fresh scenes; writes OUTPUT (JSON)."""
    from spurbench.core import atomic
    from spurbench.core.environment import choose_device
    from spurbench.mini import measure as measuring

    silence_libraries()
    measured = measuring.measure(
        scenes=scenes, samples=samples, attacked=attacked, device=choose_device(device)
    )
    atomic.write_json(output, measured)
    click.echo(measuring.render_markdown(measured))
