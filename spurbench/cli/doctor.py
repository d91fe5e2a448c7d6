"""`spurbench doctor`."""

from __future__ import annotations

import click

from spurbench.cli.tables import show
from spurbench.core.errors import SpurbenchError


@click.command()
def doctor() -> None:
    """Say what works here: versions, devices, model sources, caches, assets."""
    from rich.table import Table
    from rich.text import Text

    from spurbench.doctor import diagnose

    checks = diagnose()
    table = Table(show_header=False)
    for check in checks:
        colour = {"ok": "green", "warn": "yellow", "fail": "red"}[check.status]
        said = f"{check.detail}; {check.hint}" if check.hint else check.detail
        table.add_row(Text(check.status, colour), check.name, said)
    show(table)
    failed = [check.name for check in checks if check.status == "fail"]
    if failed:
        raise SpurbenchError(f"spurbench can't work here until mended: {', '.join(failed)}")
