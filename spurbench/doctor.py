"""What works here: versions, devices, model sources, caches, embedded assets."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spurbench.environment import package_versions
from spurbench.resources import builders
from spurbench.runs import file_sha256

TIMEOUT = 4
"""Seconds to wait for a model source."""

_EXTRAS = {"robustbench": "robustbench", "pyiqa": "quality"}


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: ``fail`` only for what nothing works without.
        detail: what was found.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str


def diagnose() -> list[Check]:
    """Look at everything; takes a few seconds and never raises."""
    return [*_versions(), *_devices(), *_sources(), *_caches(), *_assets(), _disk()]


def _versions() -> list[Check]:
    checks = [Check(name, "ok", number) for name, number in package_versions().items()]
    for module, extra in _EXTRAS.items():
        if importlib.util.find_spec(module):
            checks.append(Check(module, "ok", "installed"))
        else:
            hint = f"not installed; pip install 'spurbench[{extra}]'"
            checks.append(Check(module, "warn", hint))
    return checks


def _devices() -> list[Check]:
    import torch

    checks = [
        Check("cpu", "ok", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
    ]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            memory = f"{properties.total_memory / 2**30:.0f} GiB"
            checks.append(Check(f"cuda:{i}", "ok", f"{properties.name}, {memory}"))
    elif torch.backends.mps.is_available():
        checks.append(Check("mps", "ok", "Apple GPU"))
    else:
        checks.append(
            Check("gpu", "warn", "none; the mini recipe runs on the CPU, sd15 needs a GPU")
        )
    return checks


def _sources() -> list[Check]:
    from huggingface_hub import constants

    offline = "offline mode is set (HF_HUB_OFFLINE)"
    sources = {
        "hub (timm, hf-hub:, sd15's base, datasets)": constants.ENDPOINT,
        "torchvision weights": "https://download.pytorch.org",
        "robustbench weights": "https://drive.google.com",
    }
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(_reach, sources.values()))
    checks = []
    for (name, url), problem in zip(sources.items(), answers, strict=True):
        if url == constants.ENDPOINT and constants.HF_HUB_OFFLINE:
            problem = offline
        local = "local weights work with --checkpoint FILE"
        checks.append(
            Check(name, "warn", f"{url}: {problem}; {local}")
            if problem
            else Check(name, "ok", f"{url} answers")
        )
    return checks


def _reach(url: str) -> str | None:
    """None if the host answers, else why not."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "spurbench"})
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT).close()
    except urllib.error.HTTPError as error:
        # Any answer of the host itself shows that it is there, a proxy's refusal does not.
        return f"refused ({error.code})" if error.code in (403, 407, 502, 503) else None
    except (urllib.error.URLError, OSError, ValueError) as error:
        return f"not reachable ({getattr(error, 'reason', error)})"
    return None


def _caches() -> list[Check]:
    import torch
    from huggingface_hub import constants

    checks = []
    for name, folder in (
        ("hub cache", Path(constants.HF_HUB_CACHE)),
        ("torch cache", Path(torch.hub.get_dir())),
    ):
        if not folder.is_dir():
            checks.append(Check(name, "ok", f"{folder}: empty"))
            continue
        size = sum(
            f.stat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink()
        )
        entries = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        shown = ", ".join(entries[:6]) + (", ..." if len(entries) > 6 else "")
        checks.append(Check(name, "ok", f"{folder}: {size / 1e9:.1f} GB ({shown or 'empty'})"))
    return checks


def _assets() -> list[Check]:
    checks = []
    for name, folder in builders().items():
        listing = folder / "assets" / "assets.json"
        if not listing.is_file():
            checks.append(Check(f"recipe {name}", "ok", "embedded, brings no weights of its own"))
            continue
        files = json.loads(listing.read_text(encoding="utf-8"))["files"]
        wrong = [
            file
            for file, digest in files.items()
            if not (listing.parent / file).is_file() or file_sha256(listing.parent / file) != digest
        ]
        checks.append(
            Check(f"recipe {name}", "fail", f"asset {wrong[0]} is missing or changed; reinstall")
            if wrong
            else Check(f"recipe {name}", "ok", f"embedded, {len(files)} asset files whole")
        )
    return checks


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    status: Literal["ok", "warn"] = "ok" if free > 5 else "warn"
    return Check("free disk", status, f"{free:.0f} GB in {Path.cwd()}")
