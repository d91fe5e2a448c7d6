"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
GIVEN_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
GIVEN_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
"""Those that are given are there already."""

split_option = click.option(
    "--split",
    type=click.Choice(["real", "generated", "all"]),
    default="all",
    show_default=True,
)


def classifier_options(command: Callable[..., None]) -> Callable[..., None]:
    """Whom to ask: ``specs`` and ``panel_file``."""
    for option in (
        click.option(
            "--panel",
            "panel_file",
            type=FILE,
            help="TOML file with a list `classifiers` of such SPECs.",
        ),
        click.option(
            "--model",
            "specs",
            multiple=True,
            metavar="SPEC[=CHECKPOINT]",
            help="timm name, torchvision:ARCH.WEIGHTS, transformers:OWNER/NAME, "
            "open_clip:ARCH.TAG, onnx:FILE, robustbench:NAME, hf-hub:OWNER/NAME (timm's format), "
            "mini:NAME (embedded panel), vlm:OWNER/NAME (asked for yes or no), or a folder in "
            "timm's or transformers' format; repeatable.",
        ),
    ):
        command = option(command)
    return command


def recipe_options(command: Callable[..., None]) -> Callable[..., None]:
    """What of a recipe to make, and how: ``wanted``, ``data`` and ``overrides``."""
    for option in (
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change a recipe key; repeatable.",
        ),
        click.option(
            "--data",
            type=GIVEN_FOLDER,
            help="Real images in the Spurious ImageNet layout. [default: the recipe's own]",
        ),
        click.option(
            "--classes",
            "wanted",
            default="all",
            show_default=True,
            help="all, paper, or names and indices: hummingbird,565.",
        ),
    ):
        command = option(command)
    return command


def device_option(command: Callable[..., None]) -> Callable[..., None]:
    """``--device``, the same for every command that runs a model."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        help="auto, cpu, cuda, cuda:N or mps. One that is asked for and missing is an error.",
    )(command)


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Who does the work: ``engine``, ``workers``, ``address`` and ``engine_options``."""
    for option in (
        click.option(
            "--engine-options",
            "engine_options",
            type=GIVEN_FILE,
            help="TOML file for slurm: partition, time, memory, ...",
        ),
        click.option("--address", help="Of a running Ray cluster. [default: one on this machine]"),
        click.option(
            "--workers",
            type=click.IntRange(1, 100_000),
            help="At once. [default: local: one a GPU, else a core; else all there is room for]",
        ),
        click.option(
            "--engine",
            type=click.Choice(["local", "ray", "slurm"]),
            default="local",
            show_default=True,
            help="Who does the work: processes of this machine, a Ray cluster, or Slurm's jobs.",
        ),
    ):
        command = option(command)
    return command


def forecast_options(command: Callable[..., None]) -> Callable[..., None]:
    """What ``--dry-run`` makes a schedule of."""
    for option in (
        click.option(
            "--device-share",
            default=0.25,
            show_default=True,
            help="With --dry-run: share of its peak that a GPU is taken to reach.",
        ),
        click.option(
            "--device-tflops",
            default=989.0,
            help="With --dry-run: a GPU's peak. [default: an H100's or H200's, bfloat16: 989]",
        ),
        click.option(
            "--gpus",
            type=click.IntRange(1, 100_000),
            help="With --dry-run: a schedule for so many.",
        ),
    ):
        command = option(command)
    return command
