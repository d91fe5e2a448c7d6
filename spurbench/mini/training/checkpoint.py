"""Checkpoints of the asset trainings, so that a stop loses little."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spurbench.core import atomic

NAME = "checkpoint.pt"


def save_checkpoint(folder: Path, step: int, parts: Mapping[str, Any]) -> None:
    """Write the state dicts of ``parts`` after ``step`` steps."""
    buffer = io.BytesIO()
    torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, buffer)
    atomic.write_bytes(folder / NAME, buffer.getvalue())


def load_checkpoint(folder: Path, parts: Mapping[str, Any]) -> int:
    """Restore ``parts`` and return the number of steps done; 0 without a checkpoint."""
    path = folder / NAME
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])
