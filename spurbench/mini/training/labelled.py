"""Labelled scenes, and classifiers trained and validated on them, as stages of a store."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spurbench.build.store import Stage, StageStore
from spurbench.core import atomic
from spurbench.core.imagenet import imagenet_names
from spurbench.mini.distributions import CLASSES, EMPTY, render_all
from spurbench.mini.scenes import Scene, render
from spurbench.mini.training.classifiers import (
    ClassifierSettings,
    predict,
    save_classifier,
    train_classifier,
)
from spurbench.mini.training.mending import retrain_last_layer
from spurbench.mini.training.vae import load_vae, soften_half, weights_sha256

log = logging.getLogger(__name__)

SPLITS = ("train", "validation")

HEAD = 1000
"""Width of the heads: ImageNet-1k's, of which the world uses eleven classes."""

DrawScene = Callable[[str, int, str, int], Scene]
"""From class, seed, split and number to a scene."""


def scenes_of_all_classes(
    draw: DrawScene, seed: int, counts: Mapping[str, int]
) -> dict[str, list[Scene]]:
    """By split, so many scenes of every class."""
    return {
        split: [draw(name, seed, split, i) for name in CLASSES for i in range(count)]
        for split, count in counts.items()
    }


def labelled_scenes(
    store: StageStore,
    subject: str,
    name: str,
    scenes: Mapping[str, Sequence[Scene]],
    vae_folder: Path,
    device: torch.device,
    **inputs: Any,
) -> Stage:
    """Render both splits; half of the training scenes go through the autoencoder.

    Args:
        store: of the stage.
        subject: of the stage, as in :meth:`StageStore.run`.
        name: likewise.
        scenes: by split; the ImageNet-1k index of the object that each shows is its label.
        vae_folder: the autoencoder.
        device: where it runs.
        inputs: what else the stage is known by.
    """

    def make(folder: Path) -> None:
        for split, those in scenes.items():
            pixels = render_all(those, f"{name} {split} scenes")
            if split == "train":
                pixels = soften_half(load_vae(vae_folder, device), pixels)
            np.save(folder / f"{split}.npy", pixels)
            np.save(folder / f"{split}-labels.npy", object_labels(those))

    world = {split: scenes_digest(those) for split, those in scenes.items()}
    inputs |= {"world": world, "vae": weights_sha256(vae_folder)}
    return store.run(subject, name, inputs, make)


def load_labelled(stage: Stage) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Pixels, (N, 64, 64, 3) uint8, and labels, (N,) int64, by split."""
    pixels, labels = (
        {split: np.load(stage.folder / f"{split}{suffix}.npy") for split in SPLITS}
        for suffix in ("", "-labels")
    )
    return pixels, labels


def trained_classifier(
    store: StageStore,
    subject: str,
    stage: str,
    scenes: Stage,
    settings: ClassifierSettings,
    *,
    name: str,
    training_data: str,
    seed: int,
    device: torch.device,
    weights: np.ndarray | None = None,
    balanced: Stage | None = None,
) -> Stage:
    """A classifier of ImageNet-1k's width in ``classifier``, its accuracy in ``measured.json``.

    Args:
        store: of the stage.
        subject: of the stage, as in :meth:`StageStore.run`.
        stage: its name, likewise.
        scenes: from :func:`labelled_scenes`.
        settings: architecture and recipe.
        name: of the classifier; its seeds derive from it.
        training_data: as in :func:`save_classifier`.
        seed: global seed.
        device: where to train.
        weights: as in :func:`train_classifier`.
        balanced: from :func:`labelled_scenes`; what the last layer is then trained anew on.
    """

    def make(folder: Path) -> None:
        pixels, labels = load_labelled(scenes)
        model = train_classifier(
            name,
            pixels["train"],
            labels["train"],
            settings,
            outputs=HEAD,
            seed=seed,
            device=device,
            work=folder,
            weights=weights,
        )
        if balanced is not None:
            others, their_labels = load_labelled(balanced)
            retrain_last_layer(model, others["train"], their_labels["train"], device)
        save_classifier(folder / "classifier", model, settings, HEAD, training_data=training_data)
        right = predict(model, pixels["validation"], device).argmax(1).numpy()
        accuracy = float((right == labels["validation"]).mean())
        log.info("%s: right on %.1f %% of validation scenes", name, 100 * accuracy)
        atomic.write_json(folder / "measured.json", {"validation_accuracy": accuracy})

    inputs: dict[str, Any] = {
        "seed": seed,
        "scenes": scenes.fingerprint,
        "settings": asdict(settings),
    }
    if weights is not None:
        inputs["weights"] = hashlib.sha256(weights.tobytes()).hexdigest()
    if balanced is not None:
        inputs["balanced"] = balanced.fingerprint
    return store.run(subject, stage, inputs, make)


def object_labels(scenes: Sequence[Scene]) -> np.ndarray:
    """ImageNet-1k index of each scene's object, or of the empty class, (N,) int64."""
    names = imagenet_names()
    return np.array([names.index(scene.object or EMPTY) for scene in scenes], np.int64)


def scenes_digest(scenes: Sequence[Scene]) -> str:
    """What a data set's scenes are: all their truths, and some of their pixels."""
    digest = hashlib.sha256(repr(scenes).encode())
    some = scenes[:: max(1, len(scenes) // 64)]
    digest.update(np.stack([render(scene) for scene in some]).tobytes())
    return digest.hexdigest()
