"""From what people ask for to an engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from spurbench.core.errors import SpurbenchError
from spurbench.engines.local import LocalEngine
from spurbench.engines.work import Engine

Name = Literal["local", "ray", "slurm"]


def open_engine(
    name: Name,
    *,
    units: int,
    device: str,
    workers: int | None = None,
    gpus_each: int = 1,
    address: str | None = None,
    options: Path | None = None,
) -> Engine | None:
    """The engine that is asked for.

    Args:
        name: which.
        units: as many as can be in work at once: no more workers are of any use.
        device: what they run on, as torch calls it; ``cuda`` is any GPU.
        workers: how many at once. None: of the local engine one a GPU, else one a core; of the
            others as many as there is room for.
        gpus_each: GPUs that a worker takes; on processors, cores.
        address: of a running Ray cluster.
        options: TOML file for Slurm, see :class:`spurbench.engines.slurm.SlurmOptions`.

    Returns:
        The engine; None where one worker is all there is, which this process is as well.

    Raises:
        SpurbenchError: if an option is not of this engine, or its package is not installed.
    """
    if address is not None and name != "ray":
        raise SpurbenchError(f"--address is for --engine ray, not {name}; leave it out")
    if options is not None and name != "slurm":
        raise SpurbenchError(f"--engine-options is for --engine slurm, not {name}; leave it out")
    gpus = gpus_each if device.startswith("cuda") else 0
    match name:
        case "local":
            if gpus:
                return _on_gpus(device, units, workers, gpus)
            count = min(units, max(1, cores() // gpus_each) if workers is None else workers)
            return LocalEngine.on_cores(count) if count > 1 else None
        case "ray":
            from spurbench.engines.ray import RayEngine

            return RayEngine(workers=workers, gpus=gpus, address=address)
        case "slurm":
            from spurbench.engines.slurm import SlurmEngine, SlurmOptions, read_options

            chosen = read_options(options) if options else SlurmOptions.model_validate({})
            return SlurmEngine(chosen, workers=workers, gpus=gpus)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _on_gpus(device: str, units: int, workers: int | None, gpus: int) -> LocalEngine | None:
    names = [device.removeprefix("cuda:")] if device != "cuda" else _visible()
    count = min(units, max(1, len(names) // gpus) if workers is None else workers)
    return LocalEngine.on_gpus(count, gpus, names) if count * gpus > 1 else None


def _visible() -> list[str]:
    """The GPUs as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return told.split(",")[:count] if told else [str(number) for number in range(count)]
