"""Train further classifiers of the world: ``spurbench mini zoo``.

They differ from the panel in architecture, recipe and data, as ``zoo.toml`` says, or ``board.toml``
for the leaderboard's. Stages are stored and resumed; each classifier ends up as a folder that
``spurbench eval`` takes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator

from spurbench.build.store import Stage, StageStore
from spurbench.core import atomic
from spurbench.core.documents import Document, Share, read_toml, validated
from spurbench.core.environment import one_thread
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import canonical_json, derive_seed
from spurbench.core.resources import builders
from spurbench.mini.distributions import BIAS, SUBFAMILIES, biased
from spurbench.mini.scenes import PLANTED_FEATURE, Scene
from spurbench.mini.training.classifiers import ClassifierSettings
from spurbench.mini.training.jobs import prepare, start_pool
from spurbench.mini.training.labelled import (
    labelled_scenes,
    scenes_of_all_classes,
    trained_classifier,
)
from spurbench.mini.training.mending import group_weights

SUBJECT = "board"
"""Of the stages in the store."""

Data = Literal["biased", "balanced"]
Mend = Literal["reweighted", "last-layer"]


class BoardClassifier(Document):
    """One classifier: what it is trained on, and how."""

    data: Data
    bias: Share | dict[str, Share] = Field(
        default=BIAS,
        description="share of a planted class's biased scenes that show its feature, or one by "
        "class",
    )
    mend: Mend | None = Field(
        default=None,
        description="reweighted: scenes with and without a class's feature are drawn equally "
        "often; last-layer: that one is trained anew on balanced scenes",
    )
    training: ClassifierSettings

    @property
    def training_data(self) -> str:
        """In a few words."""
        if not self.training.steps:
            return "none (untrained)"
        words = ["mini", self.data]
        if self.data == "biased" and self.bias != BIAS:
            shares = self.bias.values() if isinstance(self.bias, dict) else [self.bias]
            words[1] += " " + " to ".join(
                dict.fromkeys(f"{100 * share:.0f}" for share in (min(shares), max(shares)))
            )
            words[1] += " %"
        return ", ".join([*words, self.mend] if self.mend else words)

    def scene(self, name: str, seed: int, split: str, i: int) -> Scene:
        """Scene ``i`` of a class as it is trained on."""
        if self.data == "balanced":
            return balanced(name, seed, split, i)
        bias = self.bias.get(name, BIAS) if isinstance(self.bias, dict) else self.bias
        return biased(name, seed, split, i, bias)

    @model_validator(mode="after")
    def _is_one_thing(self) -> BoardClassifier:
        if self.data == "balanced" and (self.mend or "bias" in self.model_fields_set):
            raise ValueError("balanced data have no bias, and nothing to mend")
        if isinstance(self.bias, dict) and set(self.bias) != set(PLANTED_FEATURE):
            raise ValueError(f"a bias by class names {', '.join(PLANTED_FEATURE)}")
        return self

    @field_validator("training", mode="before")
    @classmethod
    def _has_known_keys(cls, value: Any) -> Any:
        # A plain dataclass would pass over a misspelt one.
        known = {f.name for f in fields(ClassifierSettings)}
        if isinstance(value, Mapping) and (unknown := set(value) - known):
            raise ValueError(f"unknown key {min(unknown)!r}; known: {', '.join(sorted(known))}")
        return value


class BoardSettings(Document):
    """What ``zoo.toml`` and ``board.toml`` hold."""

    scenes_per_class: int = Field(ge=1)
    validation_per_class: int = Field(ge=1)
    mending_per_class: int = Field(default=100, ge=1, description="scenes for a last layer")
    classifiers: dict[str, BoardClassifier] = Field(min_length=1)

    @classmethod
    def read(cls, name_or_path: str) -> BoardSettings:
        """Read a settings file.

        Args:
            name_or_path: ``zoo`` or ``board``, which are embedded, or a TOML file.

        Raises:
            SpurbenchError: if it is missing or wrong.
        """
        embedded = builders()["mini"] / f"{name_or_path}.toml"
        path = embedded if name_or_path in ("zoo", "board") else Path(name_or_path)
        try:
            return validated(cls, read_toml(path), str(path))
        except FileNotFoundError:
            raise SpurbenchError(
                f"no settings at {path}; give zoo, board, or a TOML file"
            ) from None


def balanced(name: str, seed: int, split: str, i: int) -> Scene:
    """Scene ``i`` of a class as :func:`biased`, but with any sub-family, whatever the class."""
    rng = np.random.default_rng(derive_seed(seed, f"balanced/{split}", name, i))
    return replace(biased(name, seed, split, i), subfamily=str(rng.choice(SUBFAMILIES)))


@dataclass(frozen=True)
class Board:
    """The stages of a training; asking for one makes it unless it is stored.

    Attributes:
        store: of the stages.
        settings: the classifiers.
        seed: global seed; of the world.
        device: where they are trained.
        vae_folder: the autoencoder that half of the training scenes go through, as the panel's do.
    """

    store: StageStore
    settings: BoardSettings
    seed: int
    device: torch.device
    vae_folder: Path

    def scenes(self, name: str) -> Stage:
        """What a classifier is trained on; shared by all that are trained on the same."""
        wanted = self.settings.classifiers[name]
        inputs = {"data": wanted.data, "bias": wanted.bias}
        return self._labelled(wanted.data, self._drawn(name), inputs)

    def classifier(self, name: str) -> Stage:
        """A trained classifier."""
        wanted = self.settings.classifiers[name]
        return trained_classifier(
            self.store,
            SUBJECT,
            name,
            self.scenes(name),
            wanted.training,
            name=name,
            training_data=wanted.training_data,
            seed=self.seed,
            device=self.device,
            weights=(
                group_weights(self._drawn(name)["train"]) if wanted.mend == "reweighted" else None
            ),
            balanced=self._mending() if wanted.mend == "last-layer" else None,
        )

    def _drawn(self, name: str) -> dict[str, list[Scene]]:
        counts = {
            "train": self.settings.scenes_per_class,
            "validation": self.settings.validation_per_class,
        }
        return scenes_of_all_classes(self.settings.classifiers[name].scene, self.seed, counts)

    def _mending(self) -> Stage:
        """Balanced scenes that no classifier saw in training."""

        def draw(name: str, seed: int, split: str, i: int) -> Scene:
            return balanced(name, seed, f"mending/{split}", i)

        counts = {"train": self.settings.mending_per_class, "validation": 1}
        scenes = scenes_of_all_classes(draw, self.seed, counts)
        return self._labelled("mending", scenes, {"data": "mending"})

    def _labelled(
        self, name: str, scenes: Mapping[str, list[Scene]], inputs: Mapping[str, Any]
    ) -> Stage:
        return labelled_scenes(
            self.store, SUBJECT, name, scenes, self.vae_folder, self.device, **inputs
        )


def train_board(
    output: Path,
    work: Path,
    settings: BoardSettings,
    seed: int,
    device: torch.device,
    *,
    vae_folder: Path | None = None,
    jobs: int = 1,
) -> dict[str, float]:
    """Train every classifier that isn't stored yet, and lay all of them out in ``output``.

    Args:
        output: folder of their folders.
        work: folder of finished and unfinished stages.
        settings: which classifiers.
        seed: global seed; of the world.
        device: where they are trained.
        vae_folder: the world's autoencoder. Default: the embedded one, which all worlds share.
        jobs: processes, of one thread each; how many of them decides nothing of the weights.

    Returns:
        Each classifier's accuracy on held-out scenes of the kind it was trained on.

    Raises:
        SpurbenchError: if there is no autoencoder.
    """
    vae_folder = vae_folder or builders()["mini"] / "assets/base/vae"
    if not (vae_folder / "config.json").is_file():
        raise SpurbenchError(f"no autoencoder in {vae_folder}; give a folder that diffusers wrote")
    board = Board(StageStore(work), settings, seed, device, vae_folder)
    if jobs > 1:
        # All data sets before any classifier, or jobs would wait for those of others.
        one_of_each = {
            canonical_json([wanted.data, wanted.bias]): name
            for name, wanted in settings.classifiers.items()
        }
        with start_pool(jobs, threads=1) as pool:
            for make, names in (
                (board.scenes, one_of_each.values()),
                (board.classifier, settings.classifiers),
            ):
                for job in [pool.submit(make, name) for name in names]:
                    job.result()
    prepare()
    accuracy = {}
    with one_thread():
        for name in settings.classifiers:
            stage = board.classifier(name)
            with atomic.folder(output / name) as folder:
                shutil.copytree(stage.folder / "classifier", folder, dirs_exist_ok=True)
            accuracy[name] = stage.json("measured.json")["validation_accuracy"]
    return accuracy
