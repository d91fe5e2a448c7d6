"""What a command that looks into things found: of a dataset, or of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Check:
    """One check and its outcome.

    Attributes:
        name: what was looked at.
        status: ``skipped`` where it could not be looked at.
        detail: what was found.
        hint: what to do about it, or what is possible without it.
    """

    name: str
    status: Status
    detail: str
    hint: str | None = None
