"""How the time of build, eval and leaderboard build grows with what they are given.

    python -m benchmarks.growth

Every size is the command itself, from its start to its end, on the processor: `build` on classes,
`eval` on images and on classifiers, `leaderboard build` on classifiers at 100 classes. Networks are
tiny, so what is seen is what is done around them. The paired tests between classifiers, of which
there are as many as pairs, are timed on their own besides.

Of each study two exponents, neither with anything subtracted: `exponent`, the slope of log time
against log size by least squares over the largest three sizes, which what a start costs makes
smaller; and `marginal_exponent`, 1 and the slope of the log time of each further one (from one
size to the next) against log size over the largest four, which it does not. Both on the clock and
by processor time of the command and its workers, which other programs disturb less; each size
takes its quickest run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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

from benchmarks.models import set_up
from benchmarks.page import made_up_entries, made_up_hashes
from benchmarks.report import publish, surroundings
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.evaluation import paired

GOAL = 1.05
SIDE = 64
"""Pixels of an image's side, and of what the base makes."""

Seconds = dict[str, float]
"""Of one run: ``seconds`` on the clock and ``processor_seconds``."""


def spurbench(*arguments: str | Path) -> Seconds:
    """Run a command in a process of its own, to its end.

    Raises:
        ClickException: if it fails, with its last words.
    """
    command = [sys.executable, "-c", "from spurbench.cli.main import main; main()", "--quiet"]
    started, before = time.perf_counter(), sum(os.times()[2:4])
    ran = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if ran.returncode:
        tail = "\n".join(ran.stderr.splitlines()[-5:])
        raise click.ClickException(f"spurbench {arguments[0]} failed:\n{tail}")
    # With what its workers used, which it waited for.
    return {"seconds": seconds, "processor_seconds": sum(os.times()[2:4]) - before}


def save_classifier(folder: Path, prototypes: dict[int, np.ndarray], seed: int) -> None:
    """A tiny ResNet in timm's layout that answers the class whose picture is most alike."""
    torch.manual_seed(seed)
    arguments = {"channels": [8, 16, 32, 64], "stem_width": 8}
    model = timm.create_model("resnet10t", num_classes=1000, **arguments).eval()
    pictures = torch.from_numpy(np.stack([*prototypes.values()])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        features = model.forward_head(model.forward_features(pictures.float()), pre_logits=True)
        centre = features.mean(0)
        scale = 0.01 * (features - centre).square().sum(1).mean().clamp(min=1e-9)
        model.fc.weight.zero_()
        model.fc.bias.fill_(-1.0)
        for index, p in zip(prototypes, features, strict=True):
            # How much nearer f is to p than to the centre c: f.(p - c) - (p.p - c.c) / 2.
            model.fc.weight[index] = (p - centre) / scale
            model.fc.bias[index] = (centre.square().sum() - p.square().sum()) / 2 / scale
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "resnet10t",
        "num_classes": 1000,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, SIDE, SIDE],
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    }
    (folder / "config.json").write_text(json.dumps(config))


def save_photographs(folder: Path, indices: Sequence[int], count: int) -> dict[int, np.ndarray]:
    """``count`` images of each class in the Spurious ImageNet layout, each class's nearly alike.

    Returns:
        (SIDE, SIDE, 3) by class, of what its images are.
    """
    prototypes = {}
    for index in indices:
        rng = np.random.default_rng(index)
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        prototypes[index] = smooth.clip(2, 253)
        own = folder / f"spurious_class_{index:03d}_{_slug(index)}_component_1"
        own.mkdir(parents=True)
        for i in range(count):
            noise = rng.integers(-2, 3, (SIDE, SIDE, 3))
            noisy = (prototypes[index] + noise).astype(np.uint8)
            Image.fromarray(noisy).save(own / f"{i}.png")
    return prototypes


def _slug(index: int) -> str:
    return f"made-up-{index}"


RECIPE = """
name = "growth"
description = "Noise."
base = { model = "base", resolution = 64, licence = "none" }
data = { images = "real", licence = "none" }
panel = { classifiers = [ONE, TWO], phi = TWO }
select = { references = 3 }
prior = { images = 2, steps = 2 }
finetune = { steps = 2, batch_size = 1 }
sample = { images = 4, steps = 2, batch_size = 4 }
positives = { images = 2 }
check = { quality = [] }
"""


def save_recipe(folder: Path, classes: int) -> None:
    """A recipe of so many classes, each of a noun of its own: stages of a few steps and images."""
    indices = spaced(classes)
    prototypes = save_photographs(folder / "real", indices, 8)
    recipe = RECIPE
    for seed, name in enumerate(("ONE", "TWO")):
        save_classifier(folder / name, prototypes, seed)
        recipe = recipe.replace(name, json.dumps(str(folder / name)))
    set_up("toy", folder / "base", torch.device("cpu"))
    (folder / "recipe.toml").write_text(recipe)
    entries = [
        f'''[[classes]]
index = {index}
wnid = "{imagenet_wnids()[index]}"
name = "{_slug(index)}"
spurious_feature = "noise"
component = 1
noun = "noise {index}"
'''
        for index in indices
    ]
    (folder / "classes.toml").write_text("\n".join(entries))


def spaced(classes: int) -> list[int]:
    """So many of ImageNet-1k's indices."""
    return [int(i) for i in np.linspace(0, len(imagenet_names()) - 1, classes).astype(int)]


def build_on_classes(folder: Path, sizes: Sequence[int]) -> Callable[[int], Seconds]:
    """`build` of the first of so many classes of one recipe."""
    save_recipe(folder, max(sizes))
    indices = spaced(max(sizes))

    def run(size: int) -> Seconds:
        output = folder / "out"
        shutil.rmtree(output, ignore_errors=True)
        classes = ",".join(map(str, indices[:size]))
        options = ["--device", "cpu", "--output", output / "set", "--work", output / "stages"]
        return spurbench("build", "--recipe", folder, "--classes", classes, *options)

    return run


def eval_on_images(folder: Path, sizes: Sequence[int]) -> Callable[[int], Seconds]:
    """`eval` of one classifier on so many images of ten classes."""
    for size in sizes:
        prototypes = save_photographs(folder / f"images-{size}", spaced(10), size // 10)
    save_classifier(folder / "classifier", prototypes, 0)

    def run(size: int) -> Seconds:
        return _evaluate(folder, [folder / "classifier"], folder / f"images-{size}")

    return run


def eval_on_classifiers(folder: Path, sizes: Sequence[int]) -> Callable[[int], Seconds]:
    """`eval` of so many classifiers on 500 images of ten classes."""
    prototypes = save_photographs(folder / "images", spaced(10), 50)
    for seed in range(max(sizes)):
        save_classifier(folder / f"classifier-{seed}", prototypes, seed)

    def run(size: int) -> Seconds:
        classifiers = [folder / f"classifier-{seed}" for seed in range(size)]
        return _evaluate(folder, classifiers, folder / "images")

    return run


def _evaluate(folder: Path, classifiers: Sequence[Path], images: Path) -> Seconds:
    output = folder / "results"
    shutil.rmtree(output, ignore_errors=True)
    models = [part for classifier in classifiers for part in ("--model", classifier)]
    return spurbench("eval", *models, "--data", images, "--output", output, "--device", "cpu")


def leaderboard_on_classifiers(folder: Path, sizes: Sequence[int]) -> Callable[[int], Seconds]:
    """`leaderboard build` of so many classifiers' entries at 100 classes, without images."""
    indices = spaced(100)
    boards = {size: folder / f"board-{size}" for size in sizes}
    entries = made_up_entries(max(sizes), indices, made_up_hashes(indices, 75))
    for i, entry in enumerate(entries):
        first = folder / "entries" / entry.file_name
        entry.write(first)
        for size, board in boards.items():
            if i < size:
                (board / entry.folder).mkdir(parents=True, exist_ok=True)
                os.link(first, board / entry.folder / entry.file_name)

    def run(size: int) -> Seconds:
        spent = spurbench("leaderboard", "build", "--output", boards[size])
        return spent | {"page_bytes": (boards[size] / "index.html").stat().st_size}

    return run


def tests_on_classifiers(_: Path, sizes: Sequence[int]) -> Callable[[int], Seconds]:
    """The paired tests alone, between every two classifiers on 7,500 images."""
    rng = np.random.default_rng(0)
    fooled = rng.random((max(sizes), 7500)) < rng.uniform(0.05, 0.6, (max(sizes), 1))
    paired.pairwise(fooled[:2])  # what it imports

    def run(size: int) -> Seconds:
        started, before = time.perf_counter(), time.process_time()
        paired.tie_groups(paired.pairwise(fooled[:size]))
        return {
            "seconds": time.perf_counter() - started,
            "processor_seconds": time.process_time() - before,
        }

    return run


STUDIES: dict[str, tuple[Callable[[Path, Sequence[int]], Callable[[int], Seconds]], list[int]]] = {
    "build: classes": (build_on_classes, [6, 18, 54]),
    "eval: images": (eval_on_images, [500, 1000, 2000, 4000, 8000]),
    "eval: classifiers": (eval_on_classifiers, [1, 2, 4, 8, 16]),
    "leaderboard build: classifiers": (leaderboard_on_classifiers, [10, 100, 300, 1000]),
    "paired tests: classifiers": (tests_on_classifiers, [100, 300, 1000]),
}
QUICK = {
    "build: classes": [1, 2],
    "eval: images": [50, 100],
    "eval: classifiers": [1, 2],
    "leaderboard build: classifiers": [3, 6],
    "paired tests: classifiers": [10, 20],
}


def slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """By least squares, of log y against log x; None if there is none to fit."""
    if len(x) < 2 or min(y) <= 0:
        return None
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def exponents(sizes: Sequence[int], seconds: Sequence[float]) -> dict[str, float | None]:
    """How time grows with size: as it is, and that of each further one; see this module."""
    exponent = slope(sizes[-3:], seconds[-3:])
    last, spent = np.array(sizes[-4:], float), np.array(seconds[-4:])
    middles = np.sqrt(last[1:] * last[:-1])
    marginal = slope(middles.tolist(), (np.diff(spent) / np.diff(last)).tolist())
    return {
        "exponent": exponent,
        "marginal_exponent": None if marginal is None else 1 + marginal,
        "seconds_of_a_further_one": float((seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2])),
    }


def study(run: Callable[[int], Seconds], sizes: Sequence[int], repeats: int) -> dict[str, Any]:
    """Every size in turn, ``repeats`` times; and what their times fit."""
    runs: dict[int, list[Seconds]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            runs[size].append(run(size))
    kinds = ("seconds", "processor_seconds")
    best = {kind: [min(r[kind] for r in runs[size]) for size in sizes] for kind in kinds}
    return {
        "sizes": list(sizes),
        "runs": [runs[size] for size in sizes],
        **{kind: {"best": best[kind], **exponents(sizes, best[kind])} for kind in kinds},
    }


@click.command()
@click.option("--quick", is_flag=True, help="The smallest sizes, once: whether it runs.")
@click.option("--only", multiple=True, type=click.Choice([*STUDIES]), help="Repeatable.")
@click.option("--repeats", default=2, show_default=True, help="Runs of each size.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path(__file__).parent / "results" / "growth-cpu.json",
    show_default=False,
    help="JSON file. [default: benchmarks/results/growth-cpu.json]",
)
def main(quick: bool, only: tuple[str, ...], repeats: int, output: Path) -> None:
    """Fit how time grows."""
    where = surroundings(torch.device("cpu"))  # before: the load is the other programs'
    studies = {}
    for name, (prepare, usual) in STUDIES.items():
        if only and name not in only:
            continue
        sizes = QUICK[name] if quick else usual
        with tempfile.TemporaryDirectory() as temporary:
            run = prepare(Path(temporary), sizes)
            studies[name] = study(run, sizes, 1 if quick else repeats)
        print(f"{name}: {studies[name]['seconds']['best']}", flush=True)
    document = {
        "command": "python -m benchmarks.growth",
        "surroundings": where,
        "settings": {"repeats": 1 if quick else repeats, "only": list(only), "goal": GOAL},
        "studies": studies,
    }
    publish(document, output, "Growth", table(studies))


def table(studies: dict[str, Any]) -> list[list[str]]:
    """Rows for people."""
    rows = [["", "sizes", "seconds", "exponent", "of each further one", "by processor time"]]
    for name, found in studies.items():
        clock, processor = found["seconds"], found["processor_seconds"]
        rows.append(
            [
                name,
                ", ".join(map(str, found["sizes"])),
                ", ".join(f"{seconds:.3g}" for seconds in clock["best"]),
                _number(clock["exponent"]),
                _number(clock["marginal_exponent"]),
                f"{_number(processor['exponent'])}, {_number(processor['marginal_exponent'])}",
            ]
        )
    return rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
