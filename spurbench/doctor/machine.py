"""What works here: versions, devices, model sources, caches, embedded recipes, disk."""

from __future__ import annotations

import http.client
import json
import os
import platform
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from spurbench import __version__
from spurbench.core.checks import Check
from spurbench.core.environment import PACKAGES
from spurbench.core.errors import reason
from spurbench.core.hub import torch_home
from spurbench.core.identity import file_sha256
from spurbench.core.resources import builders
from spurbench.doctor import probes
from spurbench.doctor.probes import Probe, Waiting, guarded, size
from spurbench.recipe.load import read_recipe

LOW_DISK = 5 * 2**30
"""Bytes below which a build of the full-size recipe is likely to fill the disk."""

_EXTRAS = {
    "robustbench": "pip install robustbench 'huggingface-hub<2' 'setuptools<81', for its models",
    "pyiqa": "pip install pyiqa, for image quality",
}
_LOCAL_WEIGHTS = "the mini recipe needs no network; eval takes local weights with --checkpoint"


def diagnose() -> list[Check]:
    """Look at everything: a few seconds, whatever is broken, and no exception."""
    # The network and large caches are waited for in the background while torch is imported.
    slow = [Waiting(name, probe) for name, probe in [*_sources().items(), *_caches().items()]]
    checks = [
        *guarded("packages", _packages, "fail"),
        *guarded("torch", _devices, "fail"),
        *guarded("recipes", _recipes, "fail"),
        *guarded("disk", _disk, "warn"),
    ]
    deadline = time.monotonic() + probes.PATIENCE
    for waiting in slow:
        checks += waiting.result(deadline)
    return checks


def _packages() -> list[Check]:
    checks = [
        Check("python", "ok", platform.python_version()),
        Check("spurbench", "ok", __version__),
    ]
    for name in PACKAGES:
        if name == "spurbench":
            continue
        try:
            checks.append(Check(name, "ok", version(name)))
        except PackageNotFoundError:
            checks.append(Check(name, "fail", "not installed", f"pip install {name}"))
    for name, hint in _EXTRAS.items():
        try:
            checks.append(Check(name, "ok", version(name)))
        except PackageNotFoundError:
            checks.append(Check(name, "warn", "not installed", hint))
    if find_spec("robustbench") and not find_spec("pkg_resources"):
        detail = "robustbench needs pkg_resources, which setuptools 81 removed"
        checks.append(Check("setuptools", "warn", detail, "pip install 'setuptools<81'"))
    return checks


def _devices() -> list[Check]:
    import torch

    checks = [_torchvision()]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if os.name == "posix" else 0
    cores = f"{_cores()} cores, torch uses {torch.get_num_threads()}"
    checks.append(Check("cpu", "ok", f"{cores}; {size(memory)} of memory" if memory else cores))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            detail = f"{name}, {size(free)} of {size(total)} free"
            checks.append(Check(f"cuda:{index}", "ok", detail))
    elif torch.backends.mps.is_available():
        checks.append(Check("mps", "ok", "Apple GPU, shares the memory of the CPU"))
    else:
        why = "" if torch.backends.cuda.is_built() else " (this torch is built without CUDA)"
        hint = "the mini recipe runs on the CPU; sd15 takes days without a GPU"
        checks.append(Check("gpu", "warn", f"none{why}", hint))
    return checks


def _torchvision() -> Check:
    try:
        import torchvision
    except Exception as error:  # a build for another torch fails in many ways
        hint = "install torch and torchvision together, from the same index"
        return Check("torchvision import", "fail", reason(error), hint)
    return Check("torchvision import", "ok", f"fits torch ({torchvision.__version__})")


def _cores() -> int:
    """Cores that this process may use; a container or a batch system may give it fewer than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _sources() -> dict[str, Probe]:
    """By name, the places weights come from; each asked for a file that is really fetched there."""
    from huggingface_hub import constants

    hub = "hugging face hub"

    def ask_hub() -> list[Check]:
        if constants.HF_HUB_OFFLINE:
            hint = "unset HF_HUB_OFFLINE to fetch more"
            return [Check(hub, "warn", "HF_HUB_OFFLINE is set: only what is cached is used", hint)]
        path = "timm/resnet50.a1_in1k/resolve/main/config.json"
        return [_reach(hub, f"{constants.ENDPOINT}/{path}")]

    return {
        hub: ask_hub,
        "torchvision weights": lambda: [
            _reach(
                "torchvision weights",
                "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
            )
        ],
        "robustbench weights": lambda: [
            _reach("robustbench weights", "https://drive.google.com/robots.txt")
        ],
    }


def _reach(name: str, url: str) -> Check:
    """Whether ``url`` can be had, through the proxy that the environment names."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    try:
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "spurbench"})
        with urllib.request.urlopen(request, timeout=probes.PATIENCE):
            return Check(name, "ok", f"{host} answers")
    except urllib.error.HTTPError as error:
        problem = f"{host} refuses: {error.code} {error.reason}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        problem = f"{host} is not reachable: {getattr(error, 'reason', error)}"
    return Check(name, "warn", problem, _LOCAL_WEIGHTS)


def _caches() -> dict[str, Probe]:
    from huggingface_hub import constants

    return {
        "hub cache": lambda: [_hub_cache(Path(constants.HF_HUB_CACHE))],
        "torch cache": lambda: [_torch_cache(torch_home() / "hub" / "checkpoints")],
    }


def _hub_cache(folder: Path) -> Check:
    from huggingface_hub import scan_cache_dir

    if not folder.is_dir():
        return Check("hub cache", "ok", f"{folder}: nothing yet")
    found = scan_cache_dir(folder)
    repos = {repo.repo_id: repo.size_on_disk for repo in found.repos}
    return Check("hub cache", "ok", _contents(folder, repos))


def _torch_cache(folder: Path) -> Check:
    if not folder.is_dir():
        return Check("torch cache", "ok", f"{folder}: nothing yet")
    files = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    return Check("torch cache", "ok", _contents(folder, files))


def _contents(folder: Path, sizes: dict[str, int], shown: int = 5) -> str:
    """The total, and the largest entries by name."""
    if not sizes:
        return f"{folder}: nothing yet"
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))
    names = ", ".join(f"{name} {size(sizes[name])}" for name in largest[:shown])
    more = f" and {len(sizes) - shown} more" if len(sizes) > shown else ""
    return f"{folder}: {size(sum(sizes.values()))}: {names}{more}"


def _recipes() -> list[Check]:
    embedded = builders()
    if not embedded:
        detail = "none found: the installation is incomplete"
        return [Check("recipes", "fail", detail, "reinstall spurbench")]
    return [
        check
        for name, folder in embedded.items()
        for check in guarded(f"recipe {name}", partial(_recipe, name, folder), "fail")
    ]


def _recipe(name: str, folder: Path) -> list[Check]:
    """Whether an embedded recipe is valid and the files it brings are the ones it was made with."""
    title = f"recipe {name}"
    recipe = read_recipe(str(folder))
    assets = folder / "assets"
    if not recipe.base.model.startswith("assets/"):
        return [
            Check(title, "ok", f"{len(recipe.classes)} classes, base model {recipe.base.model}")
        ]
    listing = assets / "assets.json"
    if not listing.is_file():
        return [Check(title, "warn", f"{assets} holds no trained models", "make assets")]
    wrong = list(_changed(assets, json.loads(listing.read_text(encoding="utf-8"))["files"]))
    if wrong:
        detail = f"{len(wrong)} files missing or changed in {assets}: {', '.join(wrong[:3])}"
        hint = "reinstall spurbench, or train them again: make assets"
        return [Check(title, "warn", detail, hint)]
    return [Check(title, "ok", f"{len(recipe.classes)} classes, embedded models whole")]


def _changed(folder: Path, digests: dict[str, str]) -> Iterator[str]:
    for file, digest in sorted(digests.items()):
        path = folder / file
        if not path.is_file() or file_sha256(path) != digest:
            yield file


def _disk() -> list[Check]:
    here = Path.cwd()
    free = shutil.disk_usage(here).free
    detail = f"{size(free)} free in {here}"
    if not os.access(here, os.W_OK):
        return [Check("disk", "warn", f"{here} can't be written to", "give --output a folder")]
    if free < LOW_DISK:
        return [Check("disk", "warn", detail, "give --output a folder on another disk")]
    return [Check("disk", "ok", detail)]
