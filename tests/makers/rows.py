"""Rows of a small dataset, and the dataset written of them."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from spurbench.core.identity import file_sha256, fingerprint
from spurbench.dataset.changelog import first
from spurbench.dataset.manifest import MANIFEST, Provenance
from spurbench.dataset.rows import Row, features
from spurbench.dataset.write import write_dataset
from spurbench.recipe.load import read_recipe


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def columns(split: str, i: int, **changes) -> dict:
    """A row with its image, as JSON values but for that."""
    made = split == "generated"
    data = picture(i + 1000 * made)
    spurious = i % 2 == 0
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
        "seed": 2**52 + i if made else None,
        "guidance_scale": 3.0 if made else None,
        "num_inference_steps": 25 if made else None,
        "kappa": 1.0 if made else None,
        "base_model": "base" if made else None,
        "is_reference": False,
        "replicate": 0,
        "consistently_spurious": spurious,
        "object_absent": True,
        "object_score": 0.1,
        "feature_present": True,
        "feature_score": 0.9,
        "entropy": None,
        "panel": [
            {
                "classifier": "vit",
                "prediction": 94 if spurious else 1,
                "probability": 0.5,
                "rank": 1 if spurious else 2,
            }
        ],
        "file_name": f"{split}/{i}.png",
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "twin_of": None,
        **changes,
    }


def row(split: str, i: int, **changes) -> Row:
    values = columns(split, i, **changes)
    return Row.of(values, partial(bytes, values.pop("image")))


def pictured(number: int) -> dict[str, Any]:
    """The columns of a picture of its own."""
    data = picture(number)
    return {"read": partial(bytes, data), "image_sha256": hashlib.sha256(data).hexdigest()}


def control(image: Row, **changes) -> Row:
    """The twin of a generated image."""
    made = {
        **pictured(2000 + int(image.seed or 0) % 1000),
        "twin_of": image.image_sha256,
        "prompt": "a photo of a flower",
        "kappa": None,
    }
    return replace(image, **{**made, **changes})


def in_context(image: Row, context: str, **changes) -> Row:
    """What the noise of a generated image became in a context."""
    made = {
        **pictured(zlib.crc32(f"{image.image_sha256} {context}".encode())),
        "prompt": f"{image.prompt} {context}",
        "file_name": f"{context}/{image.file_name}",
    }
    return replace(image, **{**made, **changes})


def positive(i: int, split: str = "generated", **changes) -> Row:
    """An image that shows the class."""
    data = picture(3000 + i)
    made = {
        "image": data,
        "image_sha256": hashlib.sha256(data).hexdigest(),
        "object_absent": False,
        "kappa": None,
    }
    return row(split, i, **{**made, **changes})


def every_part() -> dict[str, list[Row]]:
    """Rows of a dataset with all that a build can make."""
    generated = [row("generated", i) for i in range(4)]
    return {
        "real": [row("real", i) for i in range(3)],
        "generated": generated,
        "positives-generated": [positive(i) for i in range(2)],
        "controls-generated": [control(image) for image in generated],
        "controls-finetuned-generated": [
            control(image, kappa=image.kappa, **pictured(4000 + i))
            for i, image in enumerate(generated)
        ],
        "contexts-generated": [in_context(image, "on the beach") for image in generated[:3]],
    }


def provenance(**changes) -> Provenance:
    recipe = read_recipe("mini", ['contexts.phrases=["on the beach", "in a market"]'])
    return Provenance.model_validate(
        {
            "recipe": json.loads(recipe.model_dump_json()),
            "seed": 0,
            "device": "cpu",
            "base_model": {"name": "base", "fingerprint": "f" * 64},
            "panel": [{"name": "vit", "weights_sha256": "a" * 64}],
            "phi": {"name": "vit", "weights_sha256": "a" * 64},
            "object_detector": "oracle",
            "real_images": {"name": "photographs", "fingerprint": "b" * 64},
            "positive_images": None,
            "positives": {},
            "replicates": 1,
            "damaged": [],
            "failed_classes": {},
            "versions": {"torch": "2"},
            "licences": {"images": "MIT", "weights": "MIT"},
            **changes,
        }
    )


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


def seal(folder: Path, **changes) -> None:
    """Hash files and manifest anew, as someone would who wants a change to pass."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    manifest.pop("manifest_sha256")
    manifest["files"] = {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest["manifest_sha256"] = fingerprint(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def rewrite(folder: Path, name: str, change) -> None:
    """Write a shard anew after ``change`` of its rows."""
    rows = pq.read_table(folder / name).to_pylist()
    rows = change(rows) or rows
    table = {key: [entry[key] for entry in rows] for key in rows[0]}
    table = datasets.Dataset.from_dict(table, features=features(["entropy"]))
    table.to_parquet(str(folder / name))
