"""No-reference image quality through pyiqa, where its weights can be had."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from spurbench.core import hub
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.hub import HubFile, TorchFile
from spurbench.core.progress import tracked
from spurbench.dataset.manifest import Manifest, read_rows
from spurbench.dataset.rows import Row
from spurbench.dataset.write import write_dataset
from spurbench.images.decode import DamagedImageError, decode_rgb
from spurbench.images.records import SPLITS

log = logging.getLogger(__name__)

PUBLISHED: dict[str, tuple[HubFile | TorchFile, ...]] = {
    "topiq_nr": (
        TorchFile(
            "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
            "cfanet_nr_koniq_res50-9a73138b.pth",
            "pyiqa",
        ),
        HubFile("timm/resnet50.a1_in1k", "model.safetensors"),  # which it is initialised from
    )
}
"""The files of weights that pyiqa fetches for a metric, where they are known."""


def available(metrics: Sequence[str], device: torch.device) -> frozenset[str]:
    """Which of the metrics can run here; for each that can't, the reason is logged once.

    Raises:
        SpurbenchError: for a metric that pyiqa does not know.
    """
    return frozenset(metric for metric in metrics if _metric(metric, device) is not None)


def score(images: Iterable[Image.Image], metric: str, device: torch.device) -> list[float]:
    """A metric's score of each RGB image.

    Args:
        images: any sizes; scored one by one, at their own size.
        metric: a no-reference metric of pyiqa, e.g. ``topiq_nr`` (higher is better).
        device: where it runs.

    Raises:
        SpurbenchError: if the metric is unknown or can't run here (ask :func:`available` first).
    """
    from torchvision.transforms.v2 import functional as tv

    model = _metric(metric, device)
    if model is None:
        raise SpurbenchError(f"metric {metric} can't run here; its weights are missing")
    scores = []
    for image in images:
        pixels = tv.pil_to_tensor(image.convert("RGB")).float()[None] / 255
        with torch.inference_mode():
            scores.append(float(model(pixels.to(device))))
    return scores


def fill_quality(folder: Path, metrics: Sequence[str], device: torch.device) -> dict[str, int]:
    """Fill the null quality columns of a finished dataset, in place and atomically.

    Args:
        folder: the dataset.
        metrics: which; none for those the dataset was built with.
        device: where they run.

    Returns:
        For each metric, how many scores were filled in.

    Raises:
        SpurbenchError: if the folder is no finished dataset, or a metric can't run here.
    """
    manifest = Manifest.read(folder)
    wanted = list(metrics) or [*manifest.quality]
    if not wanted:
        raise SpurbenchError(f"{folder} was built without quality metrics; name one with --metric")
    missing = [metric for metric in wanted if metric not in available(wanted, device)]
    if missing:
        raise SpurbenchError(
            f"{', '.join(missing)} can't run here: weights or pyiqa are missing (see above); "
            "nothing was changed"
        )
    rows = read_rows(folder)
    filled = {}
    for metric in wanted:
        empty = [r for split in SPLITS for r in rows[split] if r.quality.get(metric) is None]
        images = (_decoded(row, folder) for row in empty)
        shown = tracked(images, metric, len(empty), unit="img")
        scores = iter(score(shown, metric, device))
        for part in rows:
            rows[part] = [
                replace(row, quality={**row.quality, metric: next(scores)})
                if part in SPLITS and row.quality.get(metric) is None
                else replace(row, quality={metric: None, **row.quality})
                for row in rows[part]
            ]
        filled[metric] = len(empty)
    if Manifest.read(folder) != manifest:
        raise SpurbenchError(
            f"{folder} was built anew meanwhile; nothing was changed, the same command scores it"
        )
    write_dataset(
        folder,
        rows,
        manifest.provenance,
        name=manifest.name,
        version=manifest.version,
        quality=list(dict.fromkeys([*manifest.quality, *wanted])),
        changelog=manifest.changelog,
    )
    return filled


def _decoded(row: Row, folder: Path) -> Image.Image:
    try:
        return decode_rgb(row.read())
    except DamagedImageError as error:
        raise SpurbenchError(
            f"{folder}: {row.file_name} can't be decoded: {error}; `spurbench verify {folder}` "
            "says more"
        ) from None


@cache
def _metric(name: str, device: torch.device) -> Any | None:
    """pyiqa's metric, or None (said once) if pyiqa or the weights can't be had."""
    try:
        # pyiqa announces itself and its downloads on stdout.
        with contextlib.redirect_stdout(io.StringIO()):
            import pyiqa
    except ImportError:
        log.warning(
            "quality %s: pyiqa is not installed, the column stays null; "
            "pip install 'spurbench[quality]', then `spurbench quality DIR` fills it in",
            name,
        )
        return None
    known = pyiqa.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5)
        hint = f"nearest: {', '.join(near)}" if near else "pyiqa.list_models() lists them"
        raise SpurbenchError(f"pyiqa has no metric {name!r}; {hint}")
    # Backbones and weights come from the hub, which would be tried ten times, each of them said.
    hub.use_cache_if_unreachable()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return pyiqa.create_metric(name, device=device)
    except Exception as error:  # whatever the download or the hub raises
        log.warning(
            "quality %s: weights can't be had here (%s), the column stays null; "
            "`spurbench quality DIR` fills it in later",
            name,
            reason(error)[:120],
        )
        return None
