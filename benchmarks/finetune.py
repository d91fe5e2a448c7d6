"""Seconds a step, images a second, peak memory; and the ratio to diffusers' own script.

    python -m benchmarks.finetune --size full                     on a GPU
    python -m benchmarks.finetune --size mini --peer train_dreambooth.py

Every round runs every variant once, so that a machine's other load falls on all of them; medians
are over rounds. What is timed is the library's own loop, between two of its steps.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch

from benchmarks.models import Setup, noise, set_up
from benchmarks.report import publish, spread, surroundings
from spurbench.build.costs import known_or_counted
from spurbench.build.plan import TERA
from spurbench.core.environment import choose_device
from spurbench.diffusion.cost import step_operations
from spurbench.diffusion.finetune import finetune
from spurbench.diffusion.objective import Draw, Objective
from spurbench.diffusion.sample import sample

# Dense bfloat16, by the makers' data sheets, for the share of it that is reached.
PEAK = {"NVIDIA A100": 312e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12}


def variants(resolution: int) -> dict[str, dict[str, Any]]:
    """Recipe sections by name of what is compared; ``tiny`` says to decode with a tiny decoder."""
    return {
        "no SFSL": {"kappa": 0.0},
        "no SFSL, U-Net compiled": {"kappa": 0.0, "finetune": {"compile": True}},
        "SFSL": {},
        "SFSL, decode_resolution halved": {"sfsl": {"decode_resolution": resolution // 2}},
        "SFSL, checkpoint_decoder": {"sfsl": {"checkpoint_decoder": True}},
        "SFSL, gradient_checkpointing": {"finetune": {"gradient_checkpointing": True}},
        "SFSL, every 2": {"sfsl": {"every": 2}},
        "SFSL, max_timestep 0.5": {"sfsl": {"max_timestep": 0.5}},
        "SFSL, tiny decoder": {"tiny": True},
    }


@contextmanager
def watch(first: int, last: int, device: torch.device) -> Iterator[list[float]]:
    """Note the time when steps ``first`` and ``last`` begin, everything before them being done."""
    times: list[float] = []
    original = Objective.draw

    def draw(self: Objective, seed: int, step: int) -> Draw:
        if step in (first, last):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter())
        return original(self, seed, step)

    with mock.patch.object(Objective, "draw", draw):
        yield times


def run(setup: Setup, options: dict[str, Any], steps: int, warm_up: int, folder: Path) -> Any:
    """Fine-tune once: seconds a step, and peak bytes on a GPU."""
    device, recipe = setup.base.device, setup.recipe
    setup.base.restore()
    setup.base.pipeline.unet.disable_gradient_checkpointing()
    setup.base.pipeline.text_encoder.gradient_checkpointing_disable()
    settings = recipe.finetune.model_copy(
        update={
            "steps": warm_up + steps + 1,
            "batch_size": 1,
            "checkpoint_every": 10**6,
            **options.get("finetune", {}),
        }
    )
    sfsl = recipe.sfsl.model_copy(update=options.get("sfsl", {}))
    subject = setup.subject
    if "kappa" in options:
        subject = replace(subject, kappa=options["kappa"])
    decoder = setup.tiny_decoder if options.get("tiny") else None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with watch(warm_up, warm_up + steps, device) as times:
        finetune(setup.base, subject, settings, sfsl, 0, folder, decoder=decoder)
    begun, ended = times
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return (ended - begun) / steps, peak


def run_peer(script: Path, setup: Setup, folder: Path, steps: int) -> float:
    """Seconds of one run of a given ``train_dreambooth.py`` on the same architecture."""
    settings, subject = setup.recipe.finetune, setup.subject
    for name, seed in (("instance", 0), ("class", 1)):
        (folder / name).mkdir(exist_ok=True)
        for i, image in enumerate(noise(6, subject.resolution, seed)):
            image.save(folder / name / f"{i}.png")
    precision = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[settings.precision]
    options = {
        "pretrained_model_name_or_path": folder / "pipeline",
        "instance_data_dir": folder / "instance",
        "class_data_dir": folder / "class",
        "instance_prompt": subject.instance_prompt,
        "class_prompt": subject.prior_prompt,
        "num_class_images": 6,
        "prior_loss_weight": settings.prior_weight,
        "output_dir": folder / "peer",
        "resolution": subject.resolution,
        "train_batch_size": 1,
        "max_train_steps": steps,
        "checkpointing_steps": 10**6,
        "learning_rate": settings.learning_rate,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "adam_weight_decay": settings.weight_decay,
        "mixed_precision": precision,
        "seed": 0,
    }
    command = [sys.executable, str(script), "--with_prior_preservation", "--train_text_encoder"]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    cpu = {"ACCELERATE_USE_CPU": "true"} if setup.base.device.type == "cpu" else {}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    begun = time.perf_counter()
    done = subprocess.run(
        command,
        env=os.environ | cpu | offline | threads,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-5:])
        raise click.ClickException(f"{script} ended with {done.returncode}:\n{tail}")
    return time.perf_counter() - begun


def images_a_second(setup: Setup, batch: int, steps: int) -> float:
    """Images a second of one batch, guided."""
    options = setup.recipe.sample
    begun = time.perf_counter()
    list(
        sample(
            setup.base,
            setup.subject.instance_prompt,
            range(batch),
            resolution=setup.recipe.base.resolution,
            steps=steps,
            guidance_scale=options.guidance_scale,
            batch_size=batch,
            precision=options.precision,
        )
    )
    return batch / (time.perf_counter() - begun)


@click.command()
@click.option("--size", type=click.Choice(["toy", "mini", "full"]), default="mini")
@click.option("--device", default="auto", help="As for spurbench build.")
@click.option("--steps", default=10, help="Timed steps of a run.")
@click.option("--warm-up", default=2, help="Steps before them.")
@click.option("--rounds", default=3, help="Runs of each variant, interleaved.")
@click.option("--only", multiple=True, help="A variant's name; repeatable. [default: all]")
@click.option("--batches", default="1,4,25", help="Batch sizes to sample with.")
@click.option("--sample-steps", default=25, help="Inference steps.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of training and sampling. [default: the recipe's on a GPU, float32 on a CPU]",
)
@click.option("--peer", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--output", type=click.Path(path_type=Path), help="JSON.")
def main(
    size: str,
    device: str,
    steps: int,
    warm_up: int,
    rounds: int,
    only: tuple[str, ...],
    batches: str,
    sample_steps: int,
    precision: str | None,
    peer: Path | None,
    output: Path | None,
) -> None:
    """Measure fine-tuning and sampling."""
    chosen = choose_device(device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        setup = set_up(size, folder / "pipeline", chosen)
        if precision is None and chosen.type == "cpu":
            precision = "float32"
        if precision is not None:
            changed = {
                name: getattr(setup.recipe, name).model_copy(update={"precision": precision})
                for name in ("finetune", "sample")
            }
            setup = replace(setup, recipe=setup.recipe.model_copy(update=changed))
        document = measure(setup, folder, steps, warm_up, rounds, only, batches, sample_steps, peer)
    document["size"] = size
    output = output or Path(__file__).parent / "results" / f"finetune-{size}-{chosen.type}.json"
    publish(document, output, f"One step of 1 + 1 samples, {size}", table(document))
    for batch, speed in document["images_per_second"].items():
        print(f"sampling, batch {batch}: {speed['median']:.3g} images a second")
    if "peer" in document:
        print(
            f"{document['peer']['script']}: {document['peer']['seconds']['median']:.3g} s a step; "
            f"ours without SFSL takes {document['peer']['ratio']:.2f} of that"
        )


def measure(
    setup: Setup,
    folder: Path,
    steps: int,
    warm_up: int,
    rounds: int,
    only: tuple[str, ...],
    batches: str,
    sample_steps: int,
    peer: Path | None,
) -> dict[str, Any]:
    """All rounds, as a JSON document."""
    device = setup.base.device
    chosen = {
        name: options
        for name, options in variants(setup.recipe.base.resolution).items()
        # Compiling takes minutes on a CPU; there it is measured when it is asked for by name.
        if (name in only if only else device.type == "cuda" or "compiled" not in name)
    }
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    peaks: dict[str, int | None] = {}
    speeds: dict[str, list[float]] = {batch: [] for batch in batches.split(",") if batch}
    peer_seconds: list[float] = []
    for _ in range(rounds):
        for name, options in chosen.items():
            spent, peaks[name] = run(setup, options, steps, warm_up, folder / "work")
            seconds[name].append(spent)
        if peer is not None:
            short, long = (run_peer(peer, setup, folder, n) for n in (warm_up, warm_up + steps))
            if long <= short:
                raise click.ClickException(
                    f"{peer}: {warm_up + steps} steps took no longer than {warm_up}; its start-up "
                    "hides them, give more --steps"
                )
            peer_seconds.append((long - short) / steps)
        for batch in speeds:
            speeds[batch].append(images_a_second(setup, int(batch), sample_steps))
    costs = known_or_counted(setup.configs, setup.recipe)
    finetuning = setup.recipe.finetune.model_copy(update={"batch_size": 1})
    entries = {}
    for name, options in chosen.items():
        recipe = setup.recipe.model_copy(
            update={
                "finetune": finetuning,
                "sfsl": setup.recipe.sfsl.model_copy(
                    update=options.get("sfsl", {})
                    | ({"decoder": "tiny"} if options.get("tiny") else {})
                ),
            }
        )
        # Recomputation is not counted: it is no use of the device, but what a setting costs.
        operations = step_operations(recipe, costs, options.get("kappa", 1.0))
        reached = operations / spread(seconds[name])["median"]
        entries[name] = {
            "seconds": spread(seconds[name]),
            "peak_bytes": peaks[name],
            "tflop": operations / TERA,
            "tflop_per_second": reached / TERA,
            "share_of_peak": _share(reached, device),
        }
    document: dict[str, Any] = {
        "surroundings": surroundings(device),
        "settings": {
            "resolution": setup.recipe.base.resolution,
            "precision": setup.recipe.finetune.precision,
            "steps": steps,
            "rounds": rounds,
            "sample_steps": sample_steps,
            "sample_precision": setup.recipe.sample.precision,
        },
        "variants": entries,
        "images_per_second": {batch: spread(values) for batch, values in speeds.items()},
        "peak_rss_bytes_of_the_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if peer is not None:
        spent = spread(peer_seconds)
        document["peer"] = {"script": peer.name, "seconds": spent}
        if "no SFSL" in entries:
            document["peer"]["ratio"] = entries["no SFSL"]["seconds"]["median"] / spent["median"]
    return json.loads(json.dumps(document))


def table(document: dict[str, Any]) -> list[list[str]]:
    """Rows for people; ratios are to our own step without SFSL."""
    entries = document["variants"]
    own = entries.get("no SFSL", next(iter(entries.values())))["seconds"]["median"]
    rows = [["", "s a step", "min", "max", "ratio", "TFLOP/s", "peak, GB"]]
    for name, entry in entries.items():
        spent, peak = entry["seconds"], entry["peak_bytes"]
        rows.append(
            [
                name,
                *(f"{spent[key]:.3g}" for key in ("median", "min", "max")),
                f"{spent['median'] / own:.2f}",
                f"{entry['tflop_per_second']:.3g}",
                "" if peak is None else f"{peak / 1e9:.1f}",
            ]
        )
    return rows


def _share(reached: float, device: torch.device) -> float | None:
    """Of the device's dense bfloat16 peak, where that is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((reached / peak for key, peak in PEAK.items() if name.startswith(key)), None)


if __name__ == "__main__":
    main()
