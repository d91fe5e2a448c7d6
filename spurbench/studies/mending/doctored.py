"""Doctored references, as a folder that `spurbench mend --spurious` takes."""

from __future__ import annotations

from pathlib import Path

import torch

from spurbench.core import atomic
from spurbench.core.documents import read_json
from spurbench.core.environment import one_thread
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.core.imagenet import imagenet_wnids
from spurbench.images.sources import open_images
from spurbench.mini.training.vae import load_vae, weights_sha256
from spurbench.recipe.load import read_recipe
from spurbench.studies.validity.doctored import doctored_files

NOTE = "doctored.json"
"""What the folder was made of."""

SEED = 0


def write_doctored(folder: Path, data: str, per_class: int, device: torch.device) -> None:
    """Write doctored references of each class, in ImageNet's layout; what is there stays.

    Args:
        folder: replaced as a whole, unless it was made of the same.
        data: the dataset, which marks the references in its ``real`` split.
        per_class: how many, of the references in turn.
        device: where the autoencoder runs.

    Raises:
        SpurbenchError: if a class of the dataset has no references.
    """
    recipe = read_recipe("mini")
    autoencoder = Path(recipe.locate(recipe.base.model)) / "vae"
    records = open_images(data, "real", decode=False).records
    classes = sorted({record.class_index for record in records})
    references = {
        index: [r for r in records if r.class_index == index and r.is_reference]
        for index in classes
    }
    without = [index for index, own in references.items() if not own]
    if without:
        raise SpurbenchError(
            f"{data} marks no references of class {without[0]}; give a dataset of `spurbench "
            "build`, or name --rows without doctored"
        )
    made_of = {
        "references": {str(i): [r.sha256 for r in own] for i, own in references.items()},
        "per_class": per_class,
        "seed": SEED,
        "autoencoder": weights_sha256(autoencoder),
    }
    if (folder / NOTE).is_file() and read_json(folder / NOTE) == made_of:
        return
    vae = load_vae(autoencoder, device)
    with atomic.folder(folder) as new, one_thread():
        for index, own in references.items():
            doctored_files(
                [record.read() for record in own],
                per_class,
                seed=derive_seed(SEED, "doctored", index),
                vae=vae,
                resolution=recipe.base.resolution,
                folder=new / imagenet_wnids()[index],
            )
        atomic.write_json(new / NOTE, made_of)
