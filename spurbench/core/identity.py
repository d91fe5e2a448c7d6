"""What things are known by: hashes of values, files and weights, and seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def fingerprint(value: Any) -> str:
    """Hex sha256 of a JSON value, independent of key order."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """A JSON value as :func:`fingerprint` hashes it: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hex sha256 over a state dict: names, types, shapes and values, sorted by name."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        update_with_values(digest, value)
    return digest.hexdigest()


def update_with_values(digest: Any, tensor: Tensor) -> None:
    """Feed a tensor's values to a hash as they lie in memory, row after row.

    What is said before them of names and types is the caller's: classifiers and base models
    (:mod:`spurbench.diffusion.base`) say it in two ways, which published fingerprints fix.
    """
    import torch

    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def derive_seed(seed: int, *parts: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. ``derive_seed(0, "sample", 94, 3)``.

    It depends on nothing but its arguments, so neither the order of the work nor the way it is
    sharded changes what is drawn.
    """
    digest = hashlib.sha256(json.dumps([seed, *parts]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def noise_seed(seed: int, *parts: str | int) -> int:
    """A 53-bit :func:`derive_seed`, to be published: a float64 holds it exactly.

    So do all readers of a table, pandas (where a column has nulls) and JavaScript among them.
    """
    return derive_seed(seed, *parts) >> 10
