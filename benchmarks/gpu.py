"""All that is to be measured on a GPU, in one run of ten minutes: `make bench-gpu`.

    python -m benchmarks.gpu                                       on a GPU
    python -m benchmarks.gpu --size toy --device cpu --budget 60 --output FOLDER    whether it runs

The full-size architecture with random weights, made here: nothing is downloaded. The parts, the
most important first, run one after another, each in a process of its own that is killed when its
time is out: its share of what is then left of the budget. What a part had written by then stays:

- `finetune-SIZE-DEVICE.json`: seconds a step and peak memory, by setting; a peer's step;
- `class-SIZE-DEVICE.json`: seconds of a class whose priors are stored, from its measured parts;
- `eval-SIZE-DEVICE.json`: images a second of `eval`, and of the bare compiled networks;
- `sample-SIZE-DEVICE.json`: images a second, plain and compiled with fused projections, and how
  alike their images are.

`gpu-SIZE-DEVICE.json` says of each part how it ended, and of each goal what was measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from benchmarks import eval as evaluation
from benchmarks import finetune
from benchmarks.models import Setup, noise, set_up
from benchmarks.report import print_table, spread, surroundings
from spurbench.core import atomic
from spurbench.core.environment import choose_device
from spurbench.diffusion.finetune import finetune as run_finetune
from spurbench.diffusion.sample import sample

ARCHITECTURES = {"full": ("vit_base_patch16_224", "resnet50"), "toy": ("lcnet_050",)}
MEMORY = 24e9
"""Bytes that fine-tuning is to stay under by some setting."""


@dataclass(frozen=True)
class Settings:
    """What one run measures.

    Attributes:
        size: ``full`` or ``toy``.
        device: as for spurbench.
        output: folder of the JSONs.
        pipeline: folder of the base, made by the first part that needs it.
        peer: diffusers' ``train_dreambooth.py``, if it is compared.
    """

    size: str
    device: torch.device
    output: Path
    pipeline: Path
    peer: Path | None

    @property
    def toy(self) -> bool:
        """Whether only the command itself is tried."""
        return self.size == "toy"

    @property
    def backend(self) -> str:
        """Of ``torch.compile``; inductor takes minutes on a CPU."""
        return "inductor" if self.device.type == "cuda" else "eager"

    def set_up(self) -> Setup:
        """The base; in float32 on a CPU, and a toy takes few steps to an image."""
        setup = set_up(self.size, self.pipeline, self.device)
        precision = {} if self.device.type == "cuda" else {"precision": "float32"}
        steps = {"steps": 2} if self.toy else {}
        changed = {
            "finetune": setup.recipe.finetune.model_copy(update=precision),
            "sample": setup.recipe.sample.model_copy(update=precision | steps),
        }
        return replace(setup, recipe=setup.recipe.model_copy(update=changed))

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a part's JSON, or write it again with more in it."""
        where = {"surroundings": surroundings(self.device), "size": self.size}
        atomic.write_json(self.file(name), where | dict(document))

    def file(self, name: str) -> Path:
        """A part's JSON."""
        return self.output / f"{name}-{self.size}-{self.device.type}.json"

    def synchronise(self) -> None:
        """Wait until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure_finetune(settings: Settings) -> None:
    """Steps with and without the similarity loss, of a peer, compiled, and with each setting."""
    setup = settings.set_up()
    steps, warm_up, rounds = (1, 1, 1) if settings.toy else (20, 5, 2)
    others = [
        name for name in finetune.variants(setup.recipe.base.resolution) if name.startswith("SFSL,")
    ]
    whole: dict[str, Any] = {}
    for names, peer, times in (
        (("no SFSL", "SFSL"), None, rounds),
        (("no SFSL",), settings.peer, 1),
        (tuple(others), None, 1),
        (("no SFSL, U-Net compiled",), None, 1),
    ):
        if settings.toy and names != ("no SFSL", "SFSL") and peer is None:
            continue
        if names == ("no SFSL",) and peer is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            # The peer looks for the base beside its own folders.
            (Path(folder) / "pipeline").symlink_to(settings.pipeline.resolve())
            found = finetune.measure(setup, Path(folder), steps, warm_up, times, names, "", 1, peer)
        variants = found.pop("variants") | whole.get("variants", {})
        whole = found | whole | {"variants": variants, "size": settings.size}
        settings.write("finetune", whole)


def measure_class(settings: Settings) -> None:
    """A class of the recipe, priors stored: two short runs give a step and what is not steps."""
    setup = settings.set_up()
    recipe = setup.recipe
    short, long, images, priors = (1, 3, 2, 3) if settings.toy else (10, 40, 75, 100)
    side = recipe.base.resolution
    subject = replace(
        setup.subject,
        priors=noise(priors, side, 2),
        prior_names=[str(i) for i in range(priors)],
    )
    seconds = {}
    for steps in (short, short, long):  # the first warms up
        setup.base.restore()
        options = recipe.finetune.model_copy(update={"steps": steps})
        with tempfile.TemporaryDirectory() as folder, timed(settings) as spent:
            run_finetune(setup.base, subject, options, recipe.sfsl, 0, Path(folder))
        seconds[steps] = spent[0]
    step = (seconds[long] - seconds[short]) / (long - short)
    parts = {
        "fine-tuning but its steps": seconds[short] - short * step,
        "steps": recipe.finetune.steps * step,
    }
    document = {"how": "sum of the parts", "steps": recipe.finetune.steps, "images": images}
    with timed(settings) as spent:
        _sample(setup, images)
    parts["images"] = spent[0]
    settings.write("class", document | {"parts": parts, "seconds": sum(parts.values())})


def measure_sampling(settings: Settings) -> None:
    """Plain, then compiled with fused projections; differences in levels of 255."""
    setup = settings.set_up()
    batches = (1, 2) if settings.toy else (1, 8, 25)
    repeats = 1 if settings.toy else 3
    document: dict[str, Any] = {
        "steps": setup.recipe.sample.steps,
        "resolution": setup.recipe.base.resolution,
        "precision": setup.recipe.sample.precision,
        "backend": settings.backend,
        "images_per_second": {},
    }
    pictures: dict[str, list[Image.Image]] = {}

    def measure(way: str, batch: int) -> None:
        pictures.setdefault(way, _sample(setup, batch))  # compiles, or warms up
        _sample(setup, batch)
        speeds = []
        for _ in range(repeats):
            with timed(settings) as spent:
                _sample(setup, batch)
            speeds.append(batch / spent[0])
        document["images_per_second"].setdefault(way, {})[batch] = spread(speeds)
        settings.write("sample", document)

    for batch in batches:
        measure("plain", batch)
    # What the batch alone changes by rounding: the same seed in the smallest and the largest.
    alone = pictures["plain"][:1]
    in_batch = _sample(setup, batches[-1])[:1]
    document["difference_by_batch"] = difference(alone, in_batch)
    pipeline = setup.base.pipeline
    pipeline.fuse_qkv_projections()
    pipeline.unet = torch.compile(pipeline.unet, backend=settings.backend, dynamic=False)
    pipeline.vae.decode = torch.compile(
        pipeline.vae.decode, backend=settings.backend, dynamic=False
    )
    for batch in (batches[0], batches[-1]):
        measure("compiled", batch)
    document["difference_by_compiling"] = difference(alone, pictures["compiled"][:1])
    settings.write("sample", document)


def difference(a: Sequence[Image.Image], b: Sequence[Image.Image]) -> dict[str, float]:
    """Mean and greatest absolute difference of pixels, in levels of 255."""
    apart = np.abs(np.stack(a).astype(np.int16) - np.stack(b).astype(np.int16))
    return {"mean": float(apart.mean()), "max": float(apart.max())}


def _sample(setup: Setup, count: int) -> list[Image.Image]:
    options = setup.recipe.sample
    images = sample(
        setup.base,
        setup.subject.instance_prompt,
        range(count),
        resolution=setup.recipe.base.resolution,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
        batch_size=options.batch_size,
        precision=options.precision,
    )
    return list(images)


def measure_eval(settings: Settings) -> None:
    """`eval` from the listing of files to the written result, beside the compiled network alone."""
    count, side, repeats = (6, 64, 1) if settings.toy else (4000, 512, 2)
    batch = 2 if settings.toy else 256
    cases: dict[str, dict[str, Any]] = {}
    document = {
        "images": count,
        "side": side,
        "batch_size": batch,
        "backend": settings.backend,
        "images_per_second": cases,
    }
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # as eval
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_many(folder / "images", count, side)
        classifiers = {
            architecture: evaluation.load_random(architecture, folder, settings.device)
            for architecture in ARCHITECTURES[settings.size]
        }
        for architecture, classifier in classifiers.items():
            speeds = []
            for _ in range(repeats + 1):
                with timed(settings) as spent:
                    evaluation.run_spurbench([classifier], folder / "images", batch, None)
                speeds.append(count / spent[0])
            cases[architecture] = {"spurbench": spread(speeds[1:])}
            settings.write("eval", document)
        # The bare network: in full float32 as ours, then what bfloat16 would be.
        for precision in ("float32", "bfloat16"):
            for architecture, classifier in classifiers.items():
                case, network = cases[architecture], classifier.network
                pixels = torch.rand(batch, 3, *classifier.input_size, device=settings.device)
                bare = spread(
                    [_forward(settings, network, pixels, precision) for _ in range(repeats)]
                )
                case[f"compiled_{precision}"] = bare
                case[f"of_{precision}"] = case["spurbench"]["median"] / bare["median"]
                settings.write("eval", document)


@torch.inference_mode()
def _forward(
    settings: Settings, network: torch.nn.Module, pixels: torch.Tensor, precision: str
) -> float:
    compiled = torch.compile(network, backend=settings.backend, dynamic=False)
    times = 2 if settings.toy else 20
    device = settings.device.type
    enabled = precision != "float32"
    with torch.autocast(device, dtype=torch.bfloat16, enabled=enabled):
        for _ in range(3):
            compiled(pixels)
        with timed(settings) as spent:
            for _ in range(times):
                compiled(pixels).argmax(1)
    return times * len(pixels) / spent[0]


def save_many(folder: Path, count: int, side: int) -> None:
    """JPEG files of few images; bytes after the end tell them apart."""
    evaluation.write_images(folder / "few", min(count, 32), side)
    few = [file.read_bytes() for file in sorted((folder / "few").glob("*/*.jpg"))]
    own = folder / evaluation.FOLDER
    own.mkdir()
    for i in range(count):
        (own / f"{i}.jpg").write_bytes(few[i % len(few)] + i.to_bytes(4))


@contextmanager
def timed(settings: Settings) -> Iterator[list[float]]:
    """Leaves the seconds of a block, what it asked of the device included."""
    spent: list[float] = []
    settings.synchronise()
    started = time.perf_counter()
    yield spent
    settings.synchronise()
    spent.append(time.perf_counter() - started)


PARTS: dict[str, tuple[Callable[[Settings], None], float]] = {
    "finetune": (measure_finetune, 0.4),
    "class": (measure_class, 0.14),
    "eval": (measure_eval, 0.2),
    "sample": (measure_sampling, 0.26),
}
"""What measures each, and its share of the budget."""

LEAST = 5.0
"""Seconds; no part is begun with less."""


def run_parts(
    shares: Mapping[str, float],
    budget: float,
    command: Callable[[str], Sequence[str]],
    *,
    least: float = LEAST,
) -> dict[str, dict[str, Any]]:
    """Run each part's command in turn, and kill it, with all that it started, when its time is out.

    A part has its share of what is left, among those still to come: what it leaves over is theirs.

    Args:
        shares: by part, in order.
        budget: seconds.
        command: of a part.
        least: seconds under which no part is begun.

    Returns:
        By part, ``ended`` (``done``, ``failed``, ``killed`` or ``skipped``) and ``seconds``.
    """
    deadline = time.monotonic() + budget
    ended: dict[str, dict[str, Any]] = {}
    waiting = dict(shares)
    for part in shares:
        left = deadline - time.monotonic()
        limit = left * waiting[part] / sum(waiting.values())
        del waiting[part]
        if limit < least:
            ended[part] = {"ended": "skipped", "seconds": 0.0}
            continue
        started = time.monotonic()
        process = subprocess.Popen(command(part), start_new_session=True)
        try:
            how = "failed" if process.wait(limit) else "done"
        except subprocess.TimeoutExpired:
            how = "killed"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        ended[part] = {"ended": how, "seconds": time.monotonic() - started}
    return ended


def goals(settings: Settings) -> list[dict[str, Any]]:
    """Each goal and what the JSONs of this run say of it; None where nothing was measured."""
    tuned, made, sampled, evaluated = (
        json.loads(file.read_text()) if (file := settings.file(name)).is_file() else {}
        for name in ("finetune", "class", "sample", "eval")
    )
    variants = tuned.get("variants", {})
    step = {name: entry["seconds"]["median"] for name, entry in variants.items()}
    peaks = {name: entry["peak_bytes"] for name, entry in variants.items()}
    sfsl = {name: peak for name, peak in peaks.items() if name.startswith("SFSL") and peak}
    found: list[tuple[str, str, Any]] = [
        ("a step without the loss, of the peer's", "<= 0.5", tuned.get("peer", {}).get("ratio")),
        (
            "a step with the loss, of one without",
            "<= 1.5",
            step["SFSL"] / step["no SFSL"] if {"SFSL", "no SFSL"} <= step.keys() else None,
        ),
        ("a class, s", "<= 60", made.get("seconds")),
        ("100 classes, s", "<= 7200", 100 * made["seconds"] if made else None),
        (
            "least peak memory with the loss, bytes",
            f"< {MEMORY:.0f}",
            min(sfsl.values(), default=None),
        ),
        (
            "sampling compiled, images/s",
            "the best public figure",
            _most(sampled.get("images_per_second", {}).get("compiled", {})),
        ),
        (
            "compiled images, mean difference in levels (that of the batch beside it)",
            "rounding",
            [sampled[key]["mean"] for key in ("difference_by_compiling", "difference_by_batch")]
            if "difference_by_compiling" in sampled
            else None,
        ),
        *(
            (f"eval of {name}, of its compiled float32 forward", ">= 0.9", case.get("of_float32"))
            for name, case in evaluated.get("images_per_second", {}).items()
        ),
    ]
    return [{"goal": goal, "asked": asked, "measured": value} for goal, asked, value in found]


def _most(speeds: Mapping[str, Mapping[str, float]]) -> float | None:
    return max((speed["median"] for speed in speeds.values()), default=None)


@click.command()
@click.option("--size", type=click.Choice([*ARCHITECTURES]), default="full", show_default=True)
@click.option("--device", default="cuda", show_default=True, help="As for spurbench.")
@click.option("--budget", default=540.0, show_default=True, help="Seconds of all parts.")
@click.option("--only", multiple=True, type=click.Choice([*PARTS]), help="A part; repeatable.")
@click.option(
    "--peer",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="diffusers' examples/dreambooth/train_dreambooth.py.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(__file__).parent / "results",
    show_default=False,
    help="Folder of the JSONs. [default: benchmarks/results]",
)
@click.option("--part", type=click.Choice([*PARTS]), hidden=True)
@click.option("--pipeline", type=click.Path(path_type=Path), hidden=True)
def main(
    size: str,
    device: str,
    budget: float,
    only: tuple[str, ...],
    peer: Path | None,
    output: Path,
    part: str | None,
    pipeline: Path | None,
) -> None:
    """Measure everything that needs a GPU, within a budget of seconds."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise click.ClickException(
            "no GPU that CUDA can use; --size toy --device cpu tries the command without one"
        )
    if part is not None:
        settings = Settings(size, choose_device(device), output, Path(str(pipeline)), peer)
        PARTS[part][0](settings)
        return
    with tempfile.TemporaryDirectory() as temporary:
        settings = Settings(size, choose_device(device), output, Path(temporary) / "base", peer)
        own = ["--size", size, "--device", device, "--output", str(output)]
        own += ["--pipeline", str(settings.pipeline), *(["--peer", str(peer)] if peer else [])]
        shares = {name: share for name, (_, share) in PARTS.items() if not only or name in only}
        ended = run_parts(
            shares,
            budget,
            lambda name: [sys.executable, "-m", "benchmarks.gpu", "--part", name, *own],
        )
    reached = goals(settings)
    settings.write("gpu", {"budget": budget, "parts": ended, "goals": reached})
    rows = [["part", "ended", "s"]]
    rows += [[name, how["ended"], f"{how['seconds']:.0f}"] for name, how in ended.items()]
    print_table("Parts", rows)
    rows = [["goal", "asked for", "measured"]]
    rows += [[goal["goal"], goal["asked"], _figure(goal["measured"])] for goal in reached]
    print_table("Goals", rows)
    print(f"Wrote {settings.file('gpu')}")
    failed = [name for name, how in ended.items() if how["ended"] == "failed"]
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}; what was measured is kept")


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return ", ".join(f"{one:.3g}" for one in (value if isinstance(value, list) else [value]))


if __name__ == "__main__":
    main()
