"""How fast `spurbench eval` is, beside the bare model and beside a plain torchvision loop.

    python -m benchmarks.eval

In one run, repeated and interleaved:

- spurbench: what `spurbench eval` does, from listing the files to the written result;
- forward: the bare model on tensors that are already in memory;
- loop: torchvision's ImageFolder and DataLoader, Resize, CenterCrop, ToTensor, Normalize, argmax.

Weights are random, for time does not depend on them. Seconds of processor time, worker processes
among them, stand beside those on the clock: other programs on the machine disturb them less.
"""

from __future__ import annotations

import os
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
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.report import print_table, publish, spread, spread_text, surroundings
from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.load import load_classifier
from spurbench.core.environment import choose_device
from spurbench.evaluation.evaluate import EvaluationRequest, evaluate
from spurbench.images.pixels import PixelStore
from spurbench.images.sources import open_images

SIDE = 367
"""Pixels of a side, as the photographs of Spurious ImageNet have."""
LARGE = "vit_base_patch16_224"
SMALL = ("lcnet_050", "lcnet_035", "mobilenetv3_small_050", "mobilenetv3_small_075")
FOLDER = "spurious_class_094_hummingbird_component_2"
"""Where images of noise go."""
PHOTOGRAPHS = Path(__file__).parents[2] / "shared" / "spurious_imagenet_tiles" / "images"


def write_images(folder: Path, count: int, side: int = SIDE) -> str:
    """``count`` JPEG files in the Spurious ImageNet layout; returns what they show."""
    found = sorted(PHOTOGRAPHS.glob("*/*"))[:count] if PHOTOGRAPHS.is_dir() else []
    rng = np.random.default_rng(0)
    for i in range(count):
        if found:
            image = Image.open(found[i % len(found)]).convert("RGB")
            name = found[i % len(found)].parent.name
        else:
            coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            image, name = Image.fromarray(coarse), FOLDER
        (folder / name).mkdir(parents=True, exist_ok=True)
        image.resize((side, side), Image.Resampling.BICUBIC).save(
            folder / name / f"{i}.jpg", quality=92
        )
    return "Spurious ImageNet photographs, enlarged" if found else "smooth noise"


def load_random(architecture: str, folder: Path, device: torch.device) -> Classifier:
    """A classifier with random weights."""
    torch.manual_seed(0)
    weights = folder / f"{architecture}.safetensors"
    save_file(timm.create_model(architecture, pretrained=False).state_dict(), weights)
    return load_classifier(architecture, checkpoint=weights, device=device)


def run_spurbench(
    classifiers: Sequence[Classifier], images: Path, batch_size: int, workers: int | None
) -> None:
    """Evaluate all of them."""
    request = EvaluationRequest(
        open_images(str(images), decode=False), batch_size=batch_size, decoders=workers
    )
    with tempfile.TemporaryDirectory() as output:
        folder = Path(output)
        store = PixelStore(folder) if len(classifiers) > 1 else None
        for classifier in classifiers:
            evaluate(classifier, request, folder, store=store)


@torch.inference_mode()
def run_loop(
    classifiers: Sequence[Classifier], images: Path, batch_size: int, workers: int
) -> None:
    """The plain loop, once for each classifier."""
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
        loader = DataLoader(
            ImageFolder(str(images), prepare), batch_size=batch_size, num_workers=workers
        )
        for pixels, _ in loader:
            classifier.network(pixels.to(classifier.device)).argmax(1).cpu()


@torch.inference_mode()
def run_forward(classifier: Classifier, pixels: Tensor, batch_size: int) -> None:
    """The bare model on images in memory, (N, 3, height, width)."""
    for part in pixels.split(batch_size):
        classifier.network(part).argmax(1).cpu()


def interleave(cases: dict[str, Callable[[], None]], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of each case in turn, ``repeats`` times after a first round that does not count."""
    clock: dict[str, list[float]] = {name: [] for name in cases}
    processor: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(repeats + 1):
        for name, case in cases.items():
            started, before = time.perf_counter(), sum(os.times()[:4])
            case()
            if round_:
                clock[name].append(time.perf_counter() - started)
                processor[name].append(sum(os.times()[:4]) - before)
    return {name: {"seconds": clock[name], "processor_seconds": processor[name]} for name in cases}


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="JSON file. [default: benchmarks/results/eval-DEVICE.json]",
)
@click.option("--device", default="auto", show_default=True)
@click.option("--images", default=150, show_default=True, help="For the small models.")
@click.option("--large-images", default=16, show_default=True, help="For the ViT-B/16.")
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
    output = output or Path(__file__).parent / "results" / f"eval-{chosen.type}.json"
    where = surroundings(chosen)  # before: the load is the other programs'
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shown = write_images(folder / "many", images)
        write_images(folder / "few", large_images)
        large = load_random(LARGE, folder, chosen)
        small = [load_random(name, folder, chosen) for name in SMALL]
        few, many = folder / "few", folder / "many"
        memory = {
            c: torch.rand(count, 3, *c.input_size, device=chosen)
            for c, count in ((large, large_images), (small[0], images))
        }
        timed = {
            LARGE: interleave(
                {
                    "spurbench": lambda: run_spurbench([large], few, batch_size, workers),
                    "forward": lambda: run_forward(large, memory[large], batch_size),
                },
                repeats,
            ),
            SMALL[0]: interleave(
                {
                    "spurbench": lambda: run_spurbench(small[:1], many, batch_size, workers),
                    "loop": lambda: run_loop(small[:1], many, batch_size, workers),
                    "forward": lambda: run_forward(small[0], memory[small[0]], batch_size),
                },
                repeats,
            ),
            "four small": interleave(
                {
                    "spurbench": lambda: run_spurbench(small, many, batch_size, workers),
                    "loop": lambda: run_loop(small, many, batch_size, workers),
                },
                repeats,
            ),
        }
    counts = {LARGE: large_images, SMALL[0]: images, "four small": len(SMALL) * images}
    cases = [
        {
            "models": models,
            "way": way,
            "images_per_second": spread([counts[models] / s for s in spent["seconds"]]),
            "seconds": spread(spent["seconds"]),
            "processor_seconds": spread(spent["processor_seconds"]),
        }
        for models, ways in timed.items()
        for way, spent in ways.items()
    ]
    goals = ((LARGE, "forward", 0.9), (SMALL[0], "loop", 1.0), ("four small", "loop", 2.0))
    ratios = [
        {
            "models": models,
            "spurbench_against": way,
            "goal": goal,
            "speed": spread(_ratios(timed[models], way, "seconds")),
            "speed_by_processor_time": spread(_ratios(timed[models], way, "processor_seconds")),
        }
        for models, way, goal in goals
    ]
    document = {
        "command": "python -m benchmarks.eval",
        "surroundings": where,
        "settings": {
            "small": list(SMALL),
            "images": images,
            "large_images": large_images,
            "shown": shown,
            "side": SIDE,
            "batch_size": batch_size,
            "workers": workers,
            "repeats": repeats,
        },
        "ratios": ratios,
        "cases": cases,
    }
    rows = [["models", "way", "images per second", "processor seconds"]]
    rows += [
        [
            case["models"],
            case["way"],
            spread_text(case["images_per_second"]),
            spread_text(case["processor_seconds"]),
        ]
        for case in cases
    ]
    print_table("Median (least to most)", rows)
    rows = [["models", "spurbench against", "goal", "by the clock", "by processor time"]]
    rows += [
        [
            ratio["models"],
            ratio["spurbench_against"],
            f"{ratio['goal']:.1f}",
            spread_text(ratio["speed"]),
            spread_text(ratio["speed_by_processor_time"]),
        ]
        for ratio in ratios
    ]
    publish(document, output, "Speed", rows)


def _ratios(ways: dict[str, dict[str, list[float]]], other: str, kind: str) -> list[float]:
    """How many times as fast as ``other`` spurbench was in each round."""
    pairs = zip(ways[other][kind], ways["spurbench"][kind], strict=True)
    return [theirs / ours for theirs, ours in pairs]


if __name__ == "__main__":
    main()
