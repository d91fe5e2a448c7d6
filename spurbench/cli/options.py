"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click


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
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
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
