"""What a benchmark says of where it ran, and how it prints and keeps its figures."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from spurbench.core import atomic
from spurbench.core.environment import package_versions


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def spread_text(spread: Mapping[str, float]) -> str:
    """As ``median (least to greatest)``."""
    return f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"


def surroundings(device: torch.device) -> dict[str, Any]:
    """Device, versions and load."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": f"{device.type}: {name}",
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "versions": package_versions(),
    }


def print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print a table, its first row the header."""
    table = Table(title=title, title_justify="left")
    header, *body = rows
    for i, cell in enumerate(header):
        table.add_column(cell, justify="left" if i == 0 else "right")
    for row in body:
        table.add_row(*row)
    Console(width=max(110, Console().width)).print(table)


def publish(document: Mapping[str, Any], output: Path, title: str, rows: Sequence[Any]) -> None:
    """Print a table, its first row the header, and write the whole as JSON."""
    print_table(f"{title} ({document['surroundings']['device']})", rows)
    atomic.write_json(output, document)
    print(f"Wrote {output}")


def _cores() -> int | None:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
