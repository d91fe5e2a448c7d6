"""Train the embedded recipe's models from nothing: ``python -m spurbench.mini.training.assets``.

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
from spurbench.mini.training.jobs import log_times, prepare, start_pool
from spurbench.mini.training.settings import PARTS, AssetSettings, Part
from spurbench.mini.training.stages import AssetStages

LISTING = "assets.json"

FOLDERS: dict[Part, tuple[str, ...]] = {
    "base": ("base", "tiny_decoder"),
    "classifiers": ("panel", "oracle", "real"),
}
"""What each part fills among the assets."""


@dataclass(frozen=True)
class TrainedPart:
    """A part's finished models.

    Attributes:
        folders: by their name among the assets.
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
        jobs: 2 trains the base model in one process and the classifiers in another, which end with
            this one. Models this small gain little from a second core each. On a CPU the number of
            threads, the cores shared out among the jobs, decides the last bits of the weights.

    Returns:
        By part, how it was made and what was measured of its models.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    kept_vae = None if "base" in parts else output / "base" / "vae"
    stages = AssetStages(StageStore(work), settings, seed, device, kept_vae)
    if jobs > 1:
        # Classifiers wait at the store's lock for an autoencoder that the other job makes.
        with start_pool(jobs, threads) as pool:
            for job in [pool.submit(_TRAIN[part], stages) for part in parts]:
                job.result()
    trained = {part: _TRAIN[part](stages) for part in parts}
    listing = json.loads((output / LISTING).read_text()) if set(parts) != set(PARTS) else {}
    with atomic.folder(output) as folder:
        for part in PARTS:
            if part not in trained:
                for name in FOLDERS[part]:
                    shutil.copytree(output / name, folder / name)
                continue
            for name, source in trained[part].folders.items():
                shutil.copytree(source, folder / name)
            listing[part] = {
                "command": "python -m spurbench.mini.training.assets",
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


def _train_base(stages: AssetStages) -> TrainedPart:
    base, decoder = stages.base, stages.tiny_decoder
    return TrainedPart(
        {"base": base.folder / "pipeline", "tiny_decoder": decoder.folder / "tiny"},
        stages.vae.json("measured.json") | {"tiny_decoder": decoder.json("measured.json")},
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


_TRAIN: dict[Part, Callable[[AssetStages], TrainedPart]] = {
    "base": _train_base,
    "classifiers": _train_classifiers,
}


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path), help="[default: the embedded recipe's assets]"
)
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("out/mini-assets"), show_default=True
)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--jobs", type=click.IntRange(1, 2), default=2, show_default=True, help="Processes.")
@click.option(
    "--part",
    "parts",
    type=click.Choice(PARTS),
    multiple=True,
    help="Train this part only and leave the other as it is. [default: both]",
)
def main(
    output: Path | None, work: Path, seed: int, device: str, jobs: int, parts: tuple[Part, ...]
) -> None:
    """Train the mini world's base model, panel and oracle; resumes where it stopped."""
    log_times()
    prepare()
    trained = train_assets(
        output or builders()["mini"] / "assets",
        work,
        AssetSettings(),
        seed,
        choose_device(device),
        parts=parts or PARTS,
        jobs=jobs,
    )
    for part, entry in trained.items():
        click.echo(f"{part}: {json.dumps(entry['measured'])}")


if __name__ == "__main__":
    main()
