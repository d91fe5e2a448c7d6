"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable

import click


def device_option(command: Callable[..., None]) -> Callable[..., None]:
    """``--device``, the same for every command that runs a model."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        help="auto, cpu, cuda, cuda:N or mps. One that is asked for and missing is an error.",
    )(command)
