"""`spurbench doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from spurbench.cli.options import FOLDER, device_option, recipe_options
from spurbench.cli.tables import show
from spurbench.core.errors import SpurbenchError


@click.command()
@click.option("--recipe", help="Look for all that a build of it will need, and nothing else.")
@recipe_options
@click.option("--base", help="As in build.")
@click.option("--output", type=FOLDER, help="As in build.")
@click.option("--work", type=FOLDER, help="As in build.")
@device_option
def doctor(
    recipe: str | None,
    wanted: str,
    data: Path | None,
    base: str | None,
    overrides: tuple[str, ...],
    output: Path | None,
    work: Path | None,
    device: str,
) -> None:
    """Say what works here: versions, devices, model sources, caches, assets.

    With --recipe instead, what its build will need: every weight, cached or reachable, the
    photographs, memory, precision and disk. Nothing is fetched. The exit status is 1 if something
    needed is missing.
    """
    from rich.table import Table
    from rich.text import Text

    if recipe is None:
        if any((data, base, overrides, output, work)) or wanted != "all" or device != "auto":
            raise SpurbenchError("doctor looks at a build only with --recipe; say which, e.g. sd15")
        from spurbench.doctor.machine import diagnose

        checks, lacking = diagnose(), "spurbench can't work here"
    else:
        from spurbench.build.request import BuildRequest

        request = BuildRequest.of(
            recipe,
            classes=wanted,
            data=data,
            overrides=overrides if base is None else (*overrides, f"base.model={base}"),
            output=output,
            work=work,
            device=device,
        )
        from spurbench.doctor.needs import needs

        checks, lacking = needs(request), f"recipe {request.recipe.name} can't be built here"
    table = Table(show_header=False)
    for check in checks:
        colour = {"ok": "green", "warn": "yellow", "fail": "red"}[check.status]
        said = f"{check.detail}; {check.hint}" if check.hint else check.detail
        table.add_row(Text(check.status, colour), check.name, said)
    show(table)
    failed = dict.fromkeys(check.name for check in checks if check.status == "fail")
    if failed:
        raise SpurbenchError(f"{lacking} until mended: {', '.join(failed)}")
