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


def surroundings(device: torch.device) -> dict[str, Any]:
    """Device, versions and load."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = platform.processor() or platform.machine()
        info = Path("/proc/cpuinfo")
        if info.exists():
            models = [line for line in info.read_text().splitlines() if "model name" in line]
            name = models[0].split(":")[1].strip() if models else name
    return {
        "device": f"{device.type}: {name}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "versions": package_versions(),
    }


def publish(document: Mapping[str, Any], output: Path, title: str, rows: Sequence[Any]) -> None:
    """Print a table, its first row the header, and write the whole as JSON."""
    table = Table(title=f"{title} ({document['surroundings']['device']})", title_justify="left")
    header, *body = rows
    for i, cell in enumerate(header):
        table.add_column(cell, justify="left" if i == 0 else "right")
    for row in body:
        table.add_row(*row)
    Console(width=max(100, Console().width)).print(table)
    atomic.write_json(output, document)
    print(f"Wrote {output}")
