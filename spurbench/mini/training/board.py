"""Train the leaderboard's further classifiers: ``python -m spurbench.mini.training.board``.

They differ from the panel in architecture, recipe and data, as ``board.toml`` says. Stages are
stored and resumed; each classifier ends up as a folder that ``spurbench eval`` takes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
from pydantic import Field, field_validator

from spurbench.build.store import Stage, StageStore
from spurbench.core import atomic
from spurbench.core.documents import Document, read_toml, validated
from spurbench.core.environment import choose_device
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.core.resources import builders
from spurbench.mini.distributions import SUBFAMILIES, biased
from spurbench.mini.scenes import Scene
from spurbench.mini.training.classifiers import ClassifierSettings
from spurbench.mini.training.jobs import prepare
from spurbench.mini.training.labelled import (
    DrawScene,
    labelled_scenes,
    scenes_of_all_classes,
    trained_classifier,
)

Data = Literal["biased", "balanced"]


class BoardClassifier(Document):
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
    classifiers: dict[str, BoardClassifier] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> BoardSettings:
        """Read a settings file.

        Raises:
            SpurbenchError: if it is missing or wrong.
        """
        try:
            return validated(cls, read_toml(path), str(path))
        except FileNotFoundError:
            raise SpurbenchError(f"no settings at {path}") from None


def balanced(name: str, seed: int, split: str, i: int) -> Scene:
    """Scene ``i`` of a class as :func:`biased`, but with any sub-family, whatever the class."""
    rng = np.random.default_rng(derive_seed(seed, f"balanced/{split}", name, i))
    return replace(biased(name, seed, split, i), subfamily=str(rng.choice(SUBFAMILIES)))


SCENES: dict[Data, DrawScene] = {"biased": biased, "balanced": balanced}


def train_board(
    output: Path, work: Path, settings: BoardSettings, seed: int, device: torch.device
) -> dict[str, float]:
    """Train every classifier that isn't stored yet, and lay all of them out in ``output``.

    Returns:
        Each classifier's accuracy on held-out scenes of the kind it was trained on.
    """
    store = StageStore(work)
    accuracy = {}
    for name, wanted in settings.classifiers.items():
        stage = trained_classifier(
            store,
            "board",
            name,
            _scenes(store, wanted.data, settings, seed, device),
            wanted.training,
            name=name,
            training_data=f"mini, {wanted.data}" if wanted.training.steps else "none (untrained)",
            seed=seed,
            device=device,
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
    scenes = scenes_of_all_classes(SCENES[data], seed, counts)
    vae_folder = builders()["mini"] / "assets/base/vae"
    return labelled_scenes(store, "board", data, scenes, vae_folder, device, data=data)


@click.command()
@click.option(
    "--settings", type=click.Path(path_type=Path), help="[default: the embedded board.toml]"
)
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
    prepare()
    try:
        board = BoardSettings.read(settings or builders()["mini"] / "board.toml")
        accuracy = train_board(output, work, board, seed, choose_device(device))
    except SpurbenchError as error:
        raise click.ClickException(str(error)) from None
    for name, value in accuracy.items():
        click.echo(f"{output / name}: right on {100 * value:.1f} % of held-out scenes")


if __name__ == "__main__":
    main()
