"""How fast `spurbench eval` is, beside the bare model and beside a plain torchvision loop.

    python -m benchmarks.eval --output benchmarks/results/eval-cpu.json

In one run, repeated and interleaved:

- spurbench: what `spurbench eval` does, from listing the files to the written result;
- forward: the bare model on tensors that are already in memory;
- loop: torchvision's ImageFolder and DataLoader, Resize, CenterCrop, ToTensor, Normalize, argmax.

The large model's weights are random, for time does not depend on them; the small ones are the
embedded panel, which takes 64 pixels.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from spurbench import atomic
from spurbench.classifiers import Classifier, load_classifier
from spurbench.environment import choose_device, package_versions
from spurbench.evaluate import evaluate_each
from spurbench.images import open_images
from spurbench.recipe import read_recipe

SIDE = 367
"""Pixels of a side, as the photographs of Spurious ImageNet have."""
LARGE = "vit_base_patch16_224"
SMALL = ("mini:resnet_v1", "mini:resnet_v2", "mini:resnet_robust", "mini:vit")
PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "spurious_imagenet_tiles" / "images"


def write_images(folder: Path, count: int) -> str:
    """``count`` JPEG files in the Spurious ImageNet layout; returns what they show."""
    found = sorted(PHOTOGRAPHS.glob("*/*"))[:count] if PHOTOGRAPHS.is_dir() else []
    rng = np.random.default_rng(0)
    for i in range(count):
        if found:
            image = Image.open(found[i % len(found)]).convert("RGB")
            name = found[i % len(found)].parent.name
        else:
            coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            image, name = Image.fromarray(coarse), "spurious_class_094_hummingbird_component_2"
        (folder / name).mkdir(parents=True, exist_ok=True)
        image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(
            folder / name / f"{i}.jpg", quality=92
        )
    return "Spurious ImageNet photographs, enlarged" if found else "smooth noise"


def load_random(architecture: str, folder: Path, device: torch.device) -> Classifier:
    """A classifier with random weights."""
    torch.manual_seed(0)
    weights = folder / f"{architecture}.safetensors"
    save_file(timm.create_model(architecture, pretrained=False).state_dict(), weights)
    return load_classifier(architecture, checkpoint=weights, device=device)


def time_spurbench(
    classifiers: Sequence[Classifier], images: Path, batch_size: int, workers: int
) -> float:
    """Seconds of an evaluation of all of them."""
    members = {c.info.name: (lambda c=c: c) for c in classifiers}
    with tempfile.TemporaryDirectory() as output:
        start = time.perf_counter()
        for measured in evaluate_each(
            members,
            open_images(str(images), decode=False),
            read_recipe("sd15")[1],
            Path(output),
            batch_size=batch_size,
            workers=workers,
        ):
            assert measured.error is None, measured.error
        return time.perf_counter() - start


@torch.inference_mode()
def time_loop(
    classifiers: Sequence[Classifier], images: Path, batch_size: int, workers: int
) -> float:
    """Seconds of the plain loop, once for each classifier."""
    seconds = 0.0
    for classifier in classifiers:
        side = classifier.input_size[0]
        prepare = transforms.Compose(
            [
                transforms.Resize(side, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(side),
                transforms.ToTensor(),
                transforms.Normalize(classifier.mean.flatten(), classifier.std.flatten()),
            ]
        )
        start = time.perf_counter()
        loader = DataLoader(
            ImageFolder(str(images), prepare), batch_size=batch_size, num_workers=workers
        )
        for pixels, _ in loader:
            classifier.network(pixels.to(classifier.device)).argmax(1).cpu()
        seconds += time.perf_counter() - start
    return seconds


@torch.inference_mode()
def time_forward(classifier: Classifier, count: int, batch_size: int) -> float:
    """Seconds of the bare model on ``count`` images in memory."""
    pixels = torch.rand(count, 3, *classifier.input_size, device=classifier.device)
    start = time.perf_counter()
    for part in pixels.split(batch_size):
        classifier.network(part).argmax(1).cpu()
    return time.perf_counter() - start


def interleave(cases: dict[str, Callable[[], float]], repeats: int) -> dict[str, dict[str, Any]]:
    """Each case in turn, ``repeats`` times after a first round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(repeats + 1):
        for name, case in cases.items():
            spent = case()
            if round_:
                seconds[name].append(spent)
    return {
        name: {"median": statistics.median(s), "min": min(s), "max": max(s), "all": s}
        for name, s in seconds.items()
    }


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Write JSON here.")
@click.option("--device", default="auto", show_default=True)
@click.option("--images", default=300, show_default=True, help="For the small models.")
@click.option("--large-images", default=48, show_default=True, help="For the ViT-B/16.")
@click.option("--batch-size", default=32, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Of spurbench and of the loop.")
@click.option("--repeats", default=5, show_default=True)
def main(
    output: Path | None,
    device: str,
    images: int,
    large_images: int,
    batch_size: int,
    workers: int,
    repeats: int,
) -> None:
    """Images per second of `spurbench eval` against the bare model and a plain loop."""
    chosen = choose_device(device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shown = write_images(folder / "many", images)
        write_images(folder / "few", large_images)
        large = load_random(LARGE, folder, chosen)
        small = [load_classifier(spec, device=chosen) for spec in SMALL]
        one, few, many = small[0], folder / "few", folder / "many"
        seconds = {
            "large": interleave(
                {
                    "spurbench": lambda: time_spurbench([large], few, batch_size, workers),
                    "forward": lambda: time_forward(large, large_images, batch_size),
                },
                repeats,
            ),
            "one small": interleave(
                {
                    "spurbench": lambda: time_spurbench([one], many, batch_size, workers),
                    "loop": lambda: time_loop([one], many, batch_size, workers),
                    "forward": lambda: time_forward(one, images, batch_size),
                },
                repeats,
            ),
            "four small": interleave(
                {
                    "spurbench": lambda: time_spurbench(small, many, batch_size, workers),
                    "loop": lambda: time_loop(small, many, batch_size, workers),
                },
                repeats,
            ),
        }
    ratios = {
        "large: spurbench / forward": _ratio(seconds["large"], "forward"),
        "one small: spurbench / loop": _ratio(seconds["one small"], "loop"),
        "four small: spurbench / loop": _ratio(seconds["four small"], "loop"),
    }
    measured = {
        "command": "python -m benchmarks.eval",
        "device": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else str(chosen),
        "threads": torch.get_num_threads(),
        "versions": package_versions(),
        "settings": {
            "images": images,
            "large_images": large_images,
            "shown": shown,
            "side": SIDE,
            "batch_size": batch_size,
            "workers": workers,
            "repeats": repeats,
            "large": LARGE,
            "small": list(SMALL),
        },
        "seconds": seconds,
        "speed_ratio": ratios,
    }
    if output is not None:
        atomic.write_json(output, measured)
    for case, by_name in seconds.items():
        for name, spent in by_name.items():
            click.echo(
                f"{case:12} {name:10} {spent['median']:8.2f} s "
                f"({spent['min']:.2f} to {spent['max']:.2f})"
            )
    click.echo(json.dumps(ratios, indent=2))


def _ratio(seconds: dict[str, dict[str, Any]], other: str) -> float:
    """How many times as fast as ``other``: the median over rounds of the ratio within a round."""
    pairs = zip(seconds[other]["all"], seconds["spurbench"]["all"], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


if __name__ == "__main__":
    main()
