"""accelerate's precisions and processes for one fine-tuning, which leave nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import AutocastKwargs

from spurbench.core.errors import SpurbenchError

MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}

# What tells accelerate that this process is one of several.
RANKS = (
    "LOCAL_RANK",
    "RANK",
    "WORLD_SIZE",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
)


@contextmanager
def accelerator(
    device: torch.device, precision: str, *, together: bool = False
) -> Iterator[Accelerator]:
    """An Accelerator whose autocast is off, except in the blocks that ask for it.

    accelerate keeps what it has found in the process and refuses an Accelerator of another
    precision; the process may be a user's, with one of their own. So what it keeps is put aside
    for the block, and its environment variables are not heeded.

    Args:
        device: where the models lie.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        together: whether this process is one of those that :func:`join` connected.

    Raises:
        SpurbenchError: for float16 on a processor, where accelerate would compute in float32.
    """
    if precision == "float16" and device.type == "cpu":
        raise SpurbenchError("finetune.precision float16 needs a GPU; take float32, or bfloat16")
    states: tuple[Any, ...] = (PartialState, AcceleratorState, GradientState)
    kept = [dict(state._shared_state) for state in states]
    _replace(states, [{}] * len(states))
    try:
        with _unheeded(() if together else RANKS):
            found = Accelerator(
                mixed_precision=MIXED[precision],
                cpu=device.type == "cpu",
                device_placement=False,
                kwargs_handlers=[AutocastKwargs(enabled=False)],
            )
        yield found
    finally:
        _replace(states, kept)


def autocast(accelerated: Accelerator) -> AbstractContextManager[None]:
    """A block that computes in the precision that ``accelerated`` was made with."""
    block: AbstractContextManager[None] = accelerated.autocast(AutocastKwargs())
    return block


def join(rank: int, processes: int, device: torch.device, meeting: Path) -> None:
    """Make this process one of several, which compute gradients together.

    Args:
        rank: which one, from 0.
        processes: how many.
        device: ``cpu``, or the GPU of this one.
        meeting: a file that is not there yet, through which they find each other.
    """
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        os.environ["OMP_NUM_THREADS"] = "1"  # else accelerate shares out the cores
        torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=meeting.absolute().as_uri(),
        rank=rank,
        world_size=processes,
    )


def _replace(states: tuple[Any, ...], values: list[dict[str, Any]]) -> None:
    for state, value in zip(states, values, strict=True):
        state._shared_state.clear()
        state._shared_state.update(value)


@contextmanager
def _unheeded(names: tuple[str, ...]) -> Iterator[None]:
    """Without these environment variables, and without accelerate's own."""
    hidden = [name for name in os.environ if name in names or name.startswith("ACCELERATE_")]
    values = {name: os.environ.pop(name) for name in hidden}
    try:
        yield
    finally:
        os.environ.update(values)
