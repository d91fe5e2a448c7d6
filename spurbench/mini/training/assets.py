"""Train a world's models from nothing: ``python -m spurbench.mini.training.assets --world N``.

World 0 is the embedded recipe's. Another has scenes and models of its own, from another seed, in a
recipe's folder; only the autoencoder, which knows no bias, is shared.

Stages are stored and resumed; a stage is known by the hash of its settings, the seed and the stages
before it. On the same hardware and package versions, the same seed gives the same weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from spurbench.build.store import StageStore
from spurbench.classifiers.load import load_classifier
from spurbench.core import atomic
from spurbench.core.environment import choose_device, package_versions
from spurbench.core.identity import file_sha256
from spurbench.core.resources import builders
from spurbench.mini.measure import spurious_accuracy
from spurbench.mini.preview import write_real
from spurbench.mini.training.board import BoardSettings, train_board
from spurbench.mini.training.jobs import log_times, prepare, start_pool
from spurbench.mini.training.settings import PARTS, AssetSettings, Part
from spurbench.mini.training.stages import AssetStages

LISTING = "assets.json"

FOLDERS: dict[Part, tuple[str, ...]] = {
    "base": ("base", "tiny_decoder"),
    "classifiers": ("panel", "oracle", "real"),
}
"""What each part fills among the assets."""

TASKS: dict[str, Part] = {
    "base": "base",
    "tuned_vae": "base",
    "panel": "classifiers",
    "oracle": "classifiers",
    "tiny_decoder": "base",
}
"""The trainings by the stages that they make, in the order in which processes take them."""

SHARED = ("tuned_vae", "tiny_decoder")
"""Those whose models know no bias, so that worlds may share them."""

RECIPE_FILES = ("recipe.toml", "classes.toml", "ablation.toml", "costs.json")


@dataclass(frozen=True)
class TrainedPart:
    """A part's finished models.

    Attributes:
        folders: by their name among the assets; a later one replaces files of an earlier one.
        measured: what was measured of them, as JSON values.
    """

    folders: dict[str, Path]
    measured: dict[str, Any]


def train_assets(
    output: Path,
    work: Path,
    settings: AssetSettings,
    seed: int,
    device: torch.device,
    *,
    parts: Sequence[Part] = PARTS,
    jobs: int = 1,
    shared: Path | None = None,
) -> dict[str, Any]:
    """Train the assets and publish them to ``output`` in one go.

    Args:
        output: folder of the assets, replaced as a whole at the end.
        work: folder of finished and unfinished stages.
        settings: sizes and numbers.
        seed: global seed.
        device: where the models are trained.
        parts: what to train; a part left out stays as ``output`` has it. The classifiers see half
            of their scenes through the autoencoder, the new one or the one that stays.
        jobs: processes, which end with this one: the first trains the autoencoder and the base
            model, the others what needs no more than the autoencoder. Models this small gain little
            from a second core each. On a CPU the number of threads, the cores shared out among the
            jobs, decides the last bits of the weights.
        shared: assets of another world, whose autoencoder and tiny decoder this one has too.

    Returns:
        By part, how it was made and what was measured of its models.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    if shared is not None:
        kept_vae: Path | None = shared / "base" / "vae"
    else:
        kept_vae = None if "base" in parts else output / "base" / "vae"
    stages = AssetStages(StageStore(work), settings, seed, device, kept_vae)
    if jobs > 1:
        tasks = [
            task
            for task, part in TASKS.items()
            if part in parts and (shared is None or task not in SHARED)
        ]
        # What needs an autoencoder that another job makes waits at the store's lock.
        with start_pool(jobs, threads) as pool:
            for job in [pool.submit(_make, stages, task) for task in tasks]:
                job.result()
    train: dict[Part, Callable[[], TrainedPart]] = {
        "base": lambda: _train_base(stages, shared),
        "classifiers": lambda: _train_classifiers(stages),
    }
    trained = {part: train[part]() for part in parts}
    listing = json.loads((output / LISTING).read_text()) if set(parts) != set(PARTS) else {}
    with atomic.folder(output) as folder:
        for part in PARTS:
            if part not in trained:
                for name in FOLDERS[part]:
                    shutil.copytree(output / name, folder / name)
                continue
            for name, source in trained[part].folders.items():
                shutil.copytree(source, folder / name, dirs_exist_ok=True)
            listing[part] = {
                "command": f"python -m spurbench.mini.training.assets --world {seed}",
                "seed": seed,
                "device": str(device),
                "threads": threads if device.type == "cpu" else None,
                "settings": settings.of(part),
                "versions": package_versions(),
                "measured": trained[part].measured,
            }
        if "classifiers" in parts:
            write_real(folder / "real", settings.real_per_class, seed)
        listing["files"] = {
            str(path.relative_to(folder)): file_sha256(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        atomic.write_json(folder / LISTING, listing)
    return {part: listing[part] for part in parts}


def train_world(
    output: Path,
    work: Path,
    settings: AssetSettings,
    zoo: BoardSettings,
    world: int,
    device: torch.device,
    *,
    shared: Path,
    jobs: int = 1,
) -> dict[str, Any]:
    """Train another world: the folder of a recipe, with its assets and, in ``zoo``, its zoo.

    Args:
        output: the folder.
        work: as in :func:`train_assets`.
        settings: of the assets.
        zoo: the classifiers that have no part in any image.
        world: seed of its scenes and models.
        device: where they are trained.
        shared: as in :func:`train_assets`.
        jobs: as in :func:`train_assets`.

    Returns:
        As :func:`train_assets`, and the zoo's accuracy on held-out scenes.
    """
    trained = train_assets(
        output / "assets", work, settings, world, device, jobs=jobs, shared=shared
    )
    write_recipe(output, world)
    vae = shared / "base" / "vae"
    accuracy = train_board(output / "zoo", work, zoo, world, device, vae_folder=vae, jobs=jobs)
    return trained | {"zoo": {"measured": accuracy}}


def write_recipe(output: Path, world: int) -> None:
    """Copy the embedded recipe, with the name and the panel of another world."""
    for name in RECIPE_FILES:
        text = (builders()["mini"] / name).read_text()
        if name == "recipe.toml":
            text = text.replace('name = "mini"', f'name = "mini-world-{world}"')
            text = text.replace('"mini:', '"assets/panel/')
        atomic.write_text(output / name, text)


def _make(stages: AssetStages, task: str) -> None:
    getattr(stages, task)


def _train_base(stages: AssetStages, shared: Path | None) -> TrainedPart:
    base = stages.base.folder / "pipeline"
    if shared is not None:
        return TrainedPart({"base": base, "tiny_decoder": shared / "tiny_decoder"}, {})
    vae, decoder = stages.tuned_vae, stages.tiny_decoder
    return TrainedPart(
        {
            "base": base,
            "base/vae": vae.folder / "published",
            "tiny_decoder": decoder.folder / "tiny",
        },
        vae.json("measured.json") | {"tiny_decoder": decoder.json("measured.json")},
    )


def _train_classifiers(stages: AssetStages) -> TrainedPart:
    folders = {name: stage.folder / "classifier" for name, stage in stages.panel.items()}
    return TrainedPart(
        {
            **{f"panel/{name}": folder for name, folder in folders.items()},
            "oracle": stages.oracle.folder / "classifier",
        },
        {
            "panel": {
                name: {
                    **stage.json("measured.json"),
                    "spurious_accuracy": spurious_accuracy(
                        load_classifier(str(folders[name]), device=stages.device),
                        stages.settings.real_per_class,
                        stages.seed,
                    ),
                }
                for name, stage in stages.panel.items()
            },
            "oracle": stages.oracle.json("measured.json"),
        },
    )


@click.command()
@click.option(
    "--world",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed; 0: the embedded one. Another is made into a recipe's folder, with its zoo.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="[default: the embedded recipe's assets; of another world, out/mini-world-N]",
)
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("out/mini-assets"), show_default=True
)
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--jobs",
    type=click.IntRange(1, len(TASKS)),
    help=f"Processes. [default: one a core, {len(TASKS)} at most]",
)
@click.option(
    "--part",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    help="Of world 0: train this part only and leave the other as it is. [default: both]",
)
def main(
    world: int,
    output: Path | None,
    work: Path,
    device: str,
    jobs: int | None,
    parts: tuple[Part, ...],
) -> None:
    """Train a world's base model, panel and oracle; resumes where it stopped."""
    log_times()
    prepare()
    jobs = jobs or min(len(TASKS), torch.get_num_threads())
    embedded, chosen = builders()["mini"] / "assets", choose_device(device)
    if world == 0:
        trained = train_assets(
            output or embedded, work, AssetSettings(), 0, chosen, parts=parts or PARTS, jobs=jobs
        )
    elif parts:
        raise click.UsageError("--part goes with world 0; another is trained as a whole")
    else:
        trained = train_world(
            output or Path(f"out/mini-world-{world}"),
            work,
            AssetSettings(),
            BoardSettings.read("zoo"),
            world,
            chosen,
            shared=embedded,
            jobs=jobs,
        )
    for part, entry in trained.items():
        click.echo(f"{part}: {json.dumps(entry['measured'])}")


if __name__ == "__main__":
    main()
