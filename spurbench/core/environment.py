"""Where the program runs: package versions and devices."""

from __future__ import annotations

import platform
import re
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from spurbench.core.errors import SpurbenchError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

PACKAGES = (
    "spurbench",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "timm",
    "open_clip_torch",
    "onnxruntime",
    "datasets",
    "numpy",
    "pillow",
)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, those installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def environment(device: torch.device) -> dict[str, str]:
    """What the last digits of computed numbers depend on: versions, the device, torch's threads.

    On a GPU, where threads change nothing, they are not named.
    """
    import torch

    threads = {"threads": str(torch.get_num_threads())} if device.type == "cpu" else {}
    return {**package_versions(), "device": device_name(device), **threads}


def choose_device(wanted: str) -> torch.device:
    """The device to run on.

    Args:
        wanted: ``auto`` (CUDA, else Apple's MPS, else the CPU) or a torch device string.

    Raises:
        SpurbenchError: if a device that is asked for is not there; nothing else is used instead.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,4})?", wanted):
        raise SpurbenchError(f"unknown device {wanted!r}; try auto, cpu, cuda or cuda:1")

    import torch

    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if wanted == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    device = torch.device(wanted)
    found = there[device.type]
    if device.type == "cuda" and found and device.index is not None:
        found = device.index < torch.cuda.device_count()
    if not found:
        names = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise SpurbenchError(f"device {wanted!r} is not available here; there is {names}")
    return device


def device_name(device: torch.device) -> str:
    """What to say of where something was computed: the GPU's model, or the device's type."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch computes with one thread on a processor.

    How threads share out a sum decides its last bits, so one number of them is the same bytes on
    every machine of a kind; and one is the fastest, where other processes take the other cores.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
