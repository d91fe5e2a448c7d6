"""Rows of a small dataset, and the dataset written of them."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from spurbench.dataset.changelog import first
from spurbench.dataset.write import write_dataset
from spurbench.recipe.load import read_recipe


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def row(split: str, i: int, **changes) -> dict:
    made = split == "generated"
    data = picture(i + 1000 * made)
    return {
        "image": data,
        "label": 94,
        "class_index": 94,
        "class_name": "hummingbird",
        "wnid": "n01833805",
        "spurious_feature": "red flowers",
        "component": 2,
        "source": split,
        "prompt": "a photo of a sks flower" if made else None,
        "seed": 2**62 + i if made else None,
        "guidance_scale": 3.0 if made else None,
        "num_inference_steps": 25 if made else None,
        "kappa": 1.0 if made else None,
        "base_model": "base" if made else None,
        "is_reference": False,
        "consistently_spurious": i % 2 == 0,
        "object_absent": True,
        "object_score": 0.1,
        "feature_present": True,
        "feature_score": 0.9,
        "entropy": None,
        "panel": [{"classifier": "vit", "prediction": 94, "probability": 0.5, "rank": 1}],
        "file_name": f"{split}/{i}.png",
        "image_sha256": hashlib.sha256(data).hexdigest(),
        **changes,
    }


def provenance(**changes) -> dict:
    recipe = read_recipe("mini")
    return {
        "recipe": json.loads(recipe.model_dump_json()),
        "seed": 0,
        "device": "cpu",
        "base_model": {"name": "base", "fingerprint": "f" * 64},
        "panel": [{"name": "vit", "weights_sha256": "a" * 64}],
        "phi": {"name": "vit", "weights_sha256": "a" * 64},
        "object_detector": "oracle",
        "real_images": {"name": "photographs", "fingerprint": "b" * 64},
        "damaged": [],
        "failed_classes": {},
        "versions": {"torch": "2"},
        "licences": {"images": "MIT", "weights": "MIT"},
        **changes,
    }


def write(
    folder: Path,
    *,
    real=3,
    generated=4,
    version="1.0.0",
    rows=None,
    changelog=None,
    **changes,
) -> bool:
    rows = rows or {
        "real": [row("real", i) for i in range(real)],
        "generated": [row("generated", i) for i in range(generated)],
    }
    return write_dataset(
        folder,
        rows,
        provenance(**changes),
        name="toy",
        version=version,
        quality=["entropy"],
        changelog=changelog or first(version, None),
    )
