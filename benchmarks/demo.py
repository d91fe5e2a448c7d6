"""The demo's build by an earlier commit and by this tree, side by side; and how fast it fine-tunes.

    python -m benchmarks.demo                                          the six classes
    python -m benchmarks.demo --classes hummingbird --set finetune.steps=4

Each build is a process of its own with an empty store, as `make demo` starts it, and takes whatever
threads and workers its commit takes by default. Beside them the share of the machine's matrix rate
that fine-tuning reaches: counted operations of the recipe's own steps, by the seconds they take and
the rate of float32 matrix products, in as many processes of one thread as there are cores, all at
once.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.finetune import watch
from benchmarks.models import set_up
from benchmarks.report import publish, spread, surroundings
from spurbench.diffusion.base import load_decoder
from spurbench.diffusion.finetune import finetune
from spurbench.diffusion.objective import Objective
from spurbench.evaluation import panel
from spurbench.recipe.load import read_recipe

REPOSITORY = Path(__file__).parents[1]
CPU = torch.device("cpu")
SIDE = 1024
"""Of the matrices whose product is timed."""


def extract(commit: str, folder: Path) -> None:
    """Leave a commit's files in a folder."""
    archive = folder.with_suffix(".tar")
    command = ["git", "-C", str(REPOSITORY), "archive", "--output", str(archive), commit]
    subprocess.run(command, check=True)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")


def build(tree: Path, folder: Path, classes: str, overrides: tuple[str, ...]) -> float:
    """Seconds of one build by the program in ``tree``, from its start to its end."""
    command = [sys.executable, "-c", "from spurbench.cli.main import main; main()", "build"]
    command += ["--classes", classes, "--device", "cpu", "--output", str(folder / "dataset")]
    command += ["--work", str(folder / "store")]
    command += [part for override in overrides for part in ("--set", override)]
    begun = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-5:])
        raise click.ClickException(f"{tree.name}: the build ended with {done.returncode}:\n{tail}")
    return time.perf_counter() - begun


def speeds(steps: int, overrides: tuple[str, ...]) -> dict[str, float]:
    """Operations a second on every core at once, in sum: of matrix products, and of fine-tuning."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    context = multiprocessing.get_context("spawn")
    together, answers = context.Barrier(cores or 1), context.Queue()
    arguments = (steps, overrides, together, answers)
    processes = [context.Process(target=_speed, args=arguments) for _ in range(cores or 1)]
    for process in processes:
        process.start()
    found = []
    while len(found) < len(processes):
        if not answers.empty():
            found.append(answers.get())
        elif any(process.exitcode for process in processes):
            together.abort()
            raise click.ClickException("a process that measures speed failed; see above")
        else:
            time.sleep(0.1)
    for process in processes:
        process.join()
    product, tuning = (sum(column) for column in zip(*found, strict=True))
    return {"matrix": product, "finetune": tuning, "share": tuning / product, "cores": len(found)}


def _speed(steps: int, overrides: tuple[str, ...], together: Any, answers: Any) -> None:
    """In a process of one thread: operations a second of matrix products and of fine-tuning."""
    torch.set_num_threads(1)
    recipe = read_recipe("mini", overrides)
    warm_up = 3
    with tempfile.TemporaryDirectory() as temporary:
        setup = set_up("mini", Path(temporary) / "pipeline", CPU)
        phi = panel.load_member(recipe.panel.phi, relative_to=recipe.folder, device=CPU)
        decoder = None
        if recipe.sfsl.decoder:
            decoder = load_decoder(recipe.locate(recipe.sfsl.decoder), device=CPU)
        subject = replace(
            setup.subject,
            kappa=recipe.sfsl.kappa,
            phi=phi.features,
            phi_input=phi.input_size,
            class_weight=phi.head_weight[0],
        )
        settings = recipe.finetune.model_copy(
            update={"steps": warm_up + steps + 1, "checkpoint_every": 10**6}
        )
        objective = Objective(setup.base, subject, settings, recipe.sfsl, decoder)
        setup.base.pipeline.unet.requires_grad_(True)
        setup.base.pipeline.text_encoder.requires_grad_(True)
        with FlopCounterMode(display=False) as counter:
            for step in range(warm_up, warm_up + steps):
                objective.total(objective(objective.draw(0, step))).backward()
        setup.base.pipeline.unet.requires_grad_(False)
        setup.base.pipeline.text_encoder.requires_grad_(False)
        together.wait()
        products = [_product()]
        together.wait()
        with watch(warm_up, warm_up + steps, CPU) as times:
            finetune(
                setup.base, subject, settings, recipe.sfsl, 0, Path(temporary), decoder=decoder
            )
        together.wait()
        products.append(_product())
    begun, ended = times
    answers.put((sum(products) / 2, counter.get_total_flops() / (ended - begun)))


def _product(seconds: float = 2.0) -> float:
    """Operations a second of float32 matrix products, one thread."""
    left, right = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    torch.mm(left, right)
    begun, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds:
        torch.mm(left, right)
        count += 1
    return count * 2 * SIDE**3 / spent


@click.command()
@click.option("--commit", default="3f4756f", help="What this tree is compared to.")
@click.option("--classes", default="all", help="As for spurbench build.")
@click.option("--set", "overrides", multiple=True, help="As for spurbench build; for both.")
@click.option("--rounds", default=1, help="Builds of each, alternating.")
@click.option("--steps", default=40, help="Of fine-tuning, whose speed is measured.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON.")
def main(
    commit: str,
    classes: str,
    overrides: tuple[str, ...],
    rounds: int,
    steps: int,
    output: Path | None,
) -> None:
    """Measure the demo's build."""
    seconds: dict[str, list[float]] = {commit: [], "this tree": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        extract(commit, folder / "before")
        trees = {commit: folder / "before", "this tree": REPOSITORY}
        for number in range(rounds):
            for name, tree in trees.items():
                place = folder / f"{number}-{name}"
                seconds[name].append(build(tree, place, classes, overrides))
                print(f"{name}: {seconds[name][-1]:.1f} s")
    reached = speeds(steps, overrides)
    before, after = seconds.values()
    document = {
        "surroundings": surroundings(CPU),
        "settings": {"classes": classes, "set": overrides, "rounds": rounds, "steps": steps},
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": median(after) / median(before),
        "operations_per_second": reached,
    }
    rows = [["", "s", "min", "max", "ratio"]]
    for name, values in seconds.items():
        spent = spread(values)
        rows.append(
            [
                name,
                *(f"{spent[key]:.1f}" for key in ("median", "min", "max")),
                f"{spent['median'] / median(before):.2f}",
            ]
        )
    output = output or Path(__file__).parent / "results" / "demo-cpu.json"
    publish(document, output, f"The demo's build, classes {classes}", rows)
    print(
        f"Fine-tuning, on {reached['cores']} cores at once: {reached['finetune'] / 1e9:.1f} "
        f"GFLOP/s, {reached['share']:.2f} of their matrix products' {reached['matrix'] / 1e9:.1f}"
    )


if __name__ == "__main__":
    main()
