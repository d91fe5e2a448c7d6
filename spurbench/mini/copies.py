"""How well copies are told from fresh scenes: ``spurbench mini copies``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from spurbench.core import markdown
from spurbench.core.environment import package_versions
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.evaluation.copies import DOCTORINGS, LEAST_UNSEEN, calibrate, doctor
from spurbench.mini.distributions import render_all
from spurbench.mini.scenes import PLANTED_FEATURE, Scene
from spurbench.mini.training.vae import load_vae, round_trip
from spurbench.recipe.load import read_recipe

REFERENCES = 6

#: what is done to references -> kinds of doctoring and their strength, 1 being what they are for.
DOCTORED: dict[str, tuple[tuple[str, ...], float]] = {
    "nothing": ((), 1),
    **{kind: ((kind,), 1) for kind in DOCTORINGS},
    "all of these": (DOCTORINGS, 1),
    "all, twice as strong": (DOCTORINGS, 2),
}
FRESH = "fresh scenes"


def measure_copies(
    *, scenes: int, doctored: int, device: torch.device, seed: int = 1
) -> dict[str, Any]:
    """Which shares of doctored references and of fresh scenes are called copies, by class.

    References, the scenes that set the limit and those that are judged are three sets of fresh
    object-free scenes framed alike, near, so that innocent images are as like as they come.

    Args:
        scenes: of each class that set the limit, and as many that are judged.
        doctored: copies of each reference of every kind.
        device: where the autoencoder runs.
        seed: of scenes and doctoring.

    Returns:
        ``copies``: class to what was judged (:data:`DOCTORED`, :data:`FRESH`) to the shares called
        copies ``as rendered`` and ``through the autoencoder``; ``limits``: class to likeness, which
        the unseen scenes set in the same two ways.

    Raises:
        SpurbenchError: if too few scenes or copies are asked for.
    """
    if scenes < LEAST_UNSEEN or doctored < 1:
        raise SpurbenchError(
            f"scenes is {scenes} and doctored {doctored}; give at least {LEAST_UNSEEN} and 1"
        )
    recipe = read_recipe("mini")
    vae = load_vae(recipe.folder / recipe.base.model / "vae", device)
    copies: dict[str, dict[str, dict[str, float]]] = {}
    limits: dict[str, dict[str, float]] = {}
    for name, feature in PLANTED_FEATURE.items():
        references, unseen, fresh = (
            _images(
                render_all(
                    [
                        Scene(None, feature, derive_seed(seed, f"copies/{of}", name, i))
                        for i in range(count)
                    ],
                    f"{name}, {of}",
                )
            )
            for of, count in (("references", REFERENCES), ("unseen", scenes), ("fresh", scenes))
        )
        judged = {
            what: [
                doctor(image, kinds, derive_seed(seed, "doctor", name, what, i, k), strength)
                for i, image in enumerate(references)
                for k in range(doctored)
            ]
            for what, (kinds, strength) in DOCTORED.items()
        } | {FRESH: fresh}
        ways = {
            "as rendered": lambda images: images,
            "through the autoencoder": lambda images: _reconstructed(vae, images),
        }
        detectors = {way: calibrate(references, seen(unseen)) for way, seen in ways.items()}
        copies[name] = {
            what: {way: 1 - detectors[way].novelty(seen(images)) for way, seen in ways.items()}
            for what, images in judged.items()
        }
        limits[name] = {way: detector.limit for way, detector in detectors.items()}
    return {
        "seed": seed,
        "scenes": scenes,
        "doctored": doctored,
        "versions": package_versions(),
        "limits": limits,
        "copies": copies,
    }


def render_markdown(measured: dict[str, Any]) -> str:
    """Shares called copies, means over classes and the class that does worst, as a table."""
    copies = measured["copies"]
    ways = ("as rendered", "through the autoencoder")
    rows = []
    for what in (*DOCTORED, FRESH):
        worst = max if what == FRESH else min
        shares = [[of[what][way] for of in copies.values()] for way in ways]
        title = what if what == FRESH else f"references, {what}"
        rows.append([title, *(f"{100 * np.mean(s):.1f} ({100 * worst(s):.1f})" for s in shares)])
    return markdown.table(["called copies, % (worst class)", *ways], markdown.first_left(3), rows)


def _images(pixels: np.ndarray) -> Sequence[Image.Image]:
    return [Image.fromarray(scene) for scene in pixels]


def _reconstructed(vae: Any, images: Sequence[Image.Image]) -> Sequence[Image.Image]:
    return _images(round_trip(vae, np.stack([*map(np.asarray, images)])))
