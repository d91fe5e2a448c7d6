"""Train the leaderboard's further classifiers: ``python -m spurbench.mini.training.board``.

They differ from the panel in architecture, recipe and data, as ``board.toml`` says. Stages are
stored and resumed; each classifier ends up as a folder that ``spurbench eval`` takes.
"""

from __future__ import annotations

import logging
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
from pydantic import Field, ValidationError, field_validator

from spurbench.build.store import Stage, StageStore
from spurbench.core import atomic
from spurbench.core.documents import Document, describe
from spurbench.core.environment import choose_device
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.core.resources import builders
from spurbench.mini.data import SUBFAMILIES, biased
from spurbench.mini.objects import OBJECTS
from spurbench.mini.scenes import Scene
from spurbench.mini.training.classifiers import (
    ClassifierSettings,
    predict,
    save_classifier,
    train_classifier,
)
from spurbench.mini.training.labelled import labelled_scenes, load_labelled

log = logging.getLogger(__name__)

HEAD = 1000
"""Width of the heads, ImageNet-1k's as the panel's."""

SPLITS = ("train", "validation")

Data = Literal["biased", "balanced"]


class Trained(Document):
    """One classifier: what it is trained on, and how."""

    data: Data
    training: ClassifierSettings

    @field_validator("training", mode="before")
    @classmethod
    def _has_known_keys(cls, value: Any) -> Any:
        # A plain dataclass would pass over a misspelt one.
        known = {f.name for f in fields(ClassifierSettings)}
        if isinstance(value, Mapping) and (unknown := set(value) - known):
            raise ValueError(f"unknown key {min(unknown)!r}; known: {', '.join(sorted(known))}")
        return value


class BoardSettings(Document):
    """What ``board.toml`` holds."""

    scenes_per_class: int = Field(ge=1)
    validation_per_class: int = Field(ge=1)
    classifiers: dict[str, Trained] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> BoardSettings:
        """Read a settings file.

        Raises:
            SpurbenchError: if it is missing or wrong.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise SpurbenchError(f"no settings at {path}") from None
        except tomllib.TOMLDecodeError as error:
            raise SpurbenchError(f"{path} is not valid TOML: {error}") from None
        except ValidationError as error:
            raise SpurbenchError(f"{path}: {describe(error)}") from None


def balanced(name: str, seed: int, split: str, i: int) -> Scene:
    """Scene ``i`` of a class as :func:`biased`, but with any sub-family, whatever the class."""
    rng = np.random.default_rng(derive_seed(seed, f"balanced/{split}", name, i))
    return replace(biased(name, seed, split, i), subfamily=str(rng.choice(SUBFAMILIES)))


SCENES = {"biased": biased, "balanced": balanced}


def train_board(
    output: Path, work: Path, settings: BoardSettings, seed: int, device: torch.device
) -> dict[str, float]:
    """Train every classifier that isn't stored yet, and lay all of them out in ``output``.

    Returns:
        Each classifier's accuracy on held-out scenes of the kind it was trained on.
    """
    store = StageStore(work)
    accuracy = {}
    for name, trained in settings.classifiers.items():
        stage = _classifier(
            store, name, trained, _scenes(store, trained.data, settings, seed, device), seed, device
        )
        with atomic.folder(output / name) as folder:
            shutil.copytree(stage.folder / "classifier", folder, dirs_exist_ok=True)
        accuracy[name] = stage.json("measured.json")["validation_accuracy"]
    return accuracy


def _scenes(
    store: StageStore, data: Data, settings: BoardSettings, seed: int, device: torch.device
) -> Stage:
    """Scenes with their labels; half of the training scenes went through the embedded autoencoder,
    as the panel's did."""
    counts = {"train": settings.scenes_per_class, "validation": settings.validation_per_class}
    scenes = {
        split: [SCENES[data](name, seed, split, i) for name in OBJECTS for i in range(count)]
        for split, count in counts.items()
    }
    vae_folder = builders()["mini"] / "assets/base/vae"
    return labelled_scenes(store, "board", data, scenes, vae_folder, device, data=data)


def _classifier(
    store: StageStore, name: str, trained: Trained, scenes: Stage, seed: int, device: torch.device
) -> Stage:
    def make(folder: Path) -> None:
        pixels, labels = load_labelled(scenes)
        model = train_classifier(
            name,
            pixels["train"],
            labels["train"],
            trained.training,
            outputs=HEAD,
            seed=seed,
            device=device,
            work=folder,
        )
        save_classifier(
            folder / "classifier",
            model,
            trained.training,
            HEAD,
            training_data=f"mini, {trained.data}",
        )
        right = predict(model, pixels["validation"], device).argmax(1).numpy()
        accuracy = float((right == labels["validation"]).mean())
        log.info("%s: right on %.1f %% of held-out scenes", name, 100 * accuracy)
        atomic.write_json(folder / "measured.json", {"validation_accuracy": accuracy})

    inputs = {"seed": seed, "scenes": scenes.fingerprint, "settings": asdict(trained.training)}
    return store.run("board", name, inputs, make)


@click.command()
@click.option("--settings", type=click.Path(path_type=Path), help="[default: board.toml]")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("out/board-classifiers"),
    show_default=True,
)
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("out/.stages"), show_default=True
)
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="auto", show_default=True)
def main(settings: Path | None, output: Path, work: Path, seed: int, device: str) -> None:
    """Train the leaderboard's further classifiers; resumes where it stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_flush_denormal(True)  # small gradients of a CPU training are slow as denormals
    try:
        board = BoardSettings.read(settings or Path(__file__).parent / "board.toml")
        accuracy = train_board(output, work, board, seed, choose_device(device))
    except SpurbenchError as error:
        raise click.ClickException(str(error)) from None
    for name, value in accuracy.items():
        click.echo(f"{output / name}: right on {100 * value:.1f} % of held-out scenes")


if __name__ == "__main__":
    main()
