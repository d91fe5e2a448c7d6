"""What `spurbench discover` takes of a processor and of memory, and what all of ImageNet would.

    python -m benchmarks.discover

A ResNet-50 of random weights looks into one class of photographs, each case a process of its own:
few images and more of them, without pictures of the components, and the few with pictures. The
first two cases differ in images alone, the other two in the gradients that heat maps and features
made visible take. What 1,000 classes of 1,300 images would take is added up from that; it is not
measured. Memory is the system's peak (Linux: VmHWM).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from benchmarks.eval import load_random
from benchmarks.report import publish, surroundings
from benchmarks.scale import run
from spurbench.core.environment import choose_device
from spurbench.discovery import attack, heat
from spurbench.discovery.documents import Settings
from spurbench.discovery.neural_pca import Components, Moments

SIZE = (500, 375)
"""Width and height of a typical photograph of ImageNet."""
WNID = "n01833805"
CLASSES, IMAGES = 1000, 1300
COMPONENTS = 2
"""Whose pictures are made where they are measured: a fifth of what is usual."""


def write_photographs(folder: Path, count: int) -> None:
    """``count`` JPEG files of smooth noise, each another."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        coarse.resize(SIZE, Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=92)


def gradients(components: int, top: int, *, features: bool) -> int:
    """Images whose gradient is taken for the pictures of a class's components."""
    return components * (top * heat.STEPS + (2 * (attack.STEPS + 1) if features else 0))


def pca_seconds(size: int) -> float:
    """Processor seconds of one class's mean, covariance, components and alphas."""
    rng = np.random.default_rng(0)
    features, weight = rng.random((IMAGES, size), np.float32), rng.normal(size=size)
    began = time.process_time()
    moments = Moments(size)
    for start in range(0, IMAGES, 1024):
        moments.add(features[start : start + 1024] * weight)
    Components.of(moments, weight, Settings().components).alphas(features)
    return time.process_time() - began


def extrapolated(
    few: Mapping[str, float], many: Mapping[str, float], pictured: Mapping[str, float], pca: float
) -> dict[str, float]:
    """Processor seconds of an image, a gradient and a class; hours of all classes.

    Args:
        few: ``images``, ``gradients`` and ``processor_seconds`` of the case with few images.
        many: likewise of that with more.
        pictured: likewise of the few images with pictures.
        pca: seconds of a class's components.
    """

    def slope(other: Mapping[str, float], by: str) -> float:
        more = other["processor_seconds"] - few["processor_seconds"]
        return more / (other[by] - few[by])

    image, gradient = slope(many, "images"), slope(pictured, "gradients")
    usual = Settings()
    pictures = gradient * gradients(usual.components, usual.top, features=True)
    bare = IMAGES * image + pca
    return {
        "seconds_an_image": image,
        "seconds_a_gradient": gradient,
        "seconds_of_pca": pca,
        "seconds_of_a_class_without_pictures": bare,
        "seconds_of_a_class": bare + pictures,
        "hours_without_pictures": CLASSES * bare / 3600,
        "hours": CLASSES * (bare + pictures) / 3600,
    }


def measure(spec: str, folder: Path, images: int, device: str, *, pictured: bool) -> dict[str, Any]:
    """One case, in a process of its own."""
    photographs = folder / str(images)
    if not photographs.exists():
        write_photographs(photographs / WNID, images)
    top = Settings().top if pictured else 1
    arguments = ["discover", "--model", spec, "--images", str(photographs), "--top", str(top)]
    arguments += ["--components", str(COMPONENTS), "--workers", "1", "--device", device]
    arguments += [] if pictured else ["--no-features"]
    arguments += ["--output", str(folder / f"found-{images}-{pictured}")]
    before = os.times()
    found = run(["-c", "from spurbench.cli.main import main; main()", *arguments], {})
    after = os.times()
    return {
        "images": images,
        "gradients": gradients(COMPONENTS, top, features=pictured),
        "processor_seconds": after.children_user
        + after.children_system
        - before.children_user
        - before.children_system,
        **found,
    }


@click.command()
@click.option("--architecture", default="resnet50", show_default=True, help="timm's name.")
@click.option("--few", default=100, show_default=True)
@click.option("--many", default=400, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="JSON file. [default: benchmarks/results/discover-DEVICE.json]",
)
def main(architecture: str, few: int, many: int, device: str, output: Path | None) -> None:
    """Processor time and memory of `spurbench discover`; what ImageNet would take."""
    chosen = choose_device(device)
    output = output or Path(__file__).parent / "results" / f"discover-{chosen.type}.json"
    torch.set_num_threads(1)
    where = surroundings(chosen)  # before: the load is the other programs'
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = load_random(architecture, folder, torch.device("cpu")).head_weight.shape[1]
        spec = f"{architecture}={folder / architecture}.safetensors"
        cases = [
            measure(spec, folder, count, device, pictured=pictured)
            for count, pictured in ((few, False), (many, False), (few, True))
        ]
    document = {
        "command": "python -m benchmarks.discover",
        "surroundings": where,
        "settings": {"architecture": architecture, "features": size, "size": SIZE},
        "cases": cases,
        "extrapolated": {
            "classes": CLASSES,
            "images": IMAGES,
            **extrapolated(*cases, pca_seconds(size)),
        },
    }
    rows = [["images", "gradients", "processor seconds", "peak MB"]]
    rows += [
        [
            str(case["images"]),
            str(case["gradients"]),
            f"{case['processor_seconds']:.1f}",
            f"{case['peak_mb']:.0f}",
        ]
        for case in cases
    ]
    for what, value in document["extrapolated"].items():
        click.echo(f"{what}: {value:.4g}")
    publish(document, output, "Discover", rows)


if __name__ == "__main__":
    main()
