"""Labelled scenes that classifiers are trained and validated on, as a stage of a store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spurbench.build.store import Stage, StageStore
from spurbench.core.imagenet import imagenet_names
from spurbench.mini.data import render_all
from spurbench.mini.scenes import Scene, render
from spurbench.mini.training.vae import load_vae, soften_half, weights_sha256

SPLITS = ("train", "validation")


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
        scenes: by split; each shows an object, whose ImageNet-1k index is its label.
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

    world = {split: digest(those) for split, those in scenes.items()}
    inputs |= {"world": world, "vae": weights_sha256(vae_folder)}
    return store.run(subject, name, inputs, make)


def load_labelled(stage: Stage) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Pixels, (N, 64, 64, 3) uint8, and labels, (N,) int64, by split."""
    pixels, labels = (
        {split: np.load(stage.folder / f"{split}{suffix}.npy") for split in SPLITS}
        for suffix in ("", "-labels")
    )
    return pixels, labels


def object_labels(scenes: Sequence[Scene]) -> np.ndarray:
    """ImageNet-1k index of each scene's object, (N,) int64."""
    names = imagenet_names()
    return np.array([names.index(str(scene.object)) for scene in scenes], np.int64)


def digest(scenes: Sequence[Scene]) -> str:
    """What a data set's scenes are: all their truths, and some of their pixels."""
    digest = hashlib.sha256(repr(scenes).encode())
    some = scenes[:: max(1, len(scenes) // 64)]
    digest.update(np.stack([render(scene) for scene in some]).tobytes())
    return digest.hexdigest()
