"""Datasets of small pictures and results of made-up classifiers on them, files and all."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from spurbench.classifiers.info import ClassifierInfo, Preprocessing
from spurbench.core.identity import file_sha256
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.evaluation.results import BOOTSTRAP, Result
from spurbench.evaluation.summary import summarise
from spurbench.images.records import ImageSet
from spurbench.images.sources import open_images

CLASSES = (94, 565, 105)
FEATURES = {94: "red flower", 565: "graffiti"}
"""What the datasets made here call the features; of class 105 none is named."""
OTHER = 7  # what a classifier answers that is not fooled


def noise(split: str, index: int, i: int) -> Image.Image:
    """A picture of four blocks that differs for every image."""
    rng = np.random.default_rng([len(split), index, i])
    blocks = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST)


def save_dataset(
    folder: Path,
    *,
    name: str = "spurbench-toy",
    version: str = "1.0.0",
    images: int = 20,
    classes: tuple[int, ...] = CLASSES,
    picture: Callable[[str, int, int], Image.Image] = noise,
) -> ImageSet:
    """A folder that ``open_images`` takes for a dataset of ``spurbench build``."""
    (folder / "data").mkdir(parents=True)
    for split in ("real", "generated"):
        rows = []
        for index in classes:
            for i in range(images):
                buffer = io.BytesIO()
                picture(split, index, i).save(buffer, "PNG")
                rows.append(
                    {
                        "image": {"bytes": buffer.getvalue(), "path": None},
                        "image_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
                        "class_index": index,
                        "source": split,
                        "file_name": f"{split}/{index}/{i}.png",
                        "class_name": imagenet_names()[index],
                        "spurious_feature": FEATURES.get(index),
                    }
                )
        pq.write_table(pa.Table.from_pylist(rows), folder / f"data/{split}-00000.parquet")
    files = {f"data/{file.name}": file_sha256(file) for file in (folder / "data").iterdir()}
    manifest = {"schema": "spurbench.dataset/2", "name": name, "version": version, "files": files}
    (folder / "spurbench.json").write_text(json.dumps(manifest))
    return open_images(str(folder))


def save_result(
    folder: Path,
    images: ImageSet,
    name: str,
    shares: Mapping[str, float | Mapping[int, float]],
    *,
    source: str = "timm",
    architecture: str = "resnet50",
    renamed: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """A result and its parquet: of each class the first images fool, as many as the share says.

    Args:
        folder: where they go.
        images: the dataset.
        name: of the classifier.
        shares: by split, and by class where they differ.
        source: of the classifier.
        architecture: of the classifier.
        renamed: other text for the classes' ``name`` and ``spurious_feature``.
        seed: other than 0 shuffles which images fool.
    """
    rng = np.random.default_rng(seed)
    rows = []
    groups: dict[tuple[str, int], list] = {}
    for record in images.records:
        groups.setdefault((record.source, record.class_index), []).append(record)
    for (split, index), records in groups.items():
        share = shares[split]
        share = share if isinstance(share, float) else share[index]
        fooled = np.arange(len(records)) < round(share * len(records))
        if seed:
            rng.shuffle(fooled)
        for record, is_fooled in zip(records, fooled, strict=True):
            rows.append(
                {
                    "image_sha256": record.sha256,
                    "path": record.path,
                    "source": split,
                    "class_index": index,
                    "class_name": record.class_name,
                    "spurious_feature": record.spurious_feature,
                    "prediction": index if is_fooled else OTHER,
                    "predicted_wnid": imagenet_wnids()[index if is_fooled else OTHER],
                    "probability": rng.uniform(0.6, 0.99) if is_fooled else rng.uniform(0, 0.3),
                    "rank": 1 if is_fooled else 2,
                }
            )
    frame = pd.DataFrame(rows)
    splits = {s: summarise(frame[frame["source"] == s]) for s in shares}
    if renamed:
        splits = {
            split: part.model_copy(
                update={
                    "classes": [c.model_copy(update=dict(renamed)) for c in part.classes],
                    "summary": part.summary.model_copy(update={"worst_class": renamed["name"]}),
                }
            )
            for split, part in splits.items()
        }
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{len(list(folder.glob('*.json'))):02d}"
    frame.to_parquet(folder / f"{stem}.parquet", index=False)
    result = Result(
        summary=next(iter(splits.values())).summary,
        splits=splits,
        classifier=ClassifierInfo(
            spec=name,
            name=name,
            source=source,
            architecture=architecture,
            parameters=25_000_000,
            head="imagenet-1k",
            weights_sha256=f"weights of {name}",
        ),
        dataset=images.info,
        preprocessing=Preprocessing(
            mode="whole",
            resize=(32,),
            crop=(32, 32),
            interpolation="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        damaged=[],
        settings=BOOTSTRAP,
        predictions=f"{stem}.parquet",
        predictions_sha256=file_sha256(folder / f"{stem}.parquet"),
        environment={"device": "cpu"},
        created="2024-02-13T00:00:00+00:00",
    ).with_answers((folder / f"{stem}.parquet").read_bytes())
    result.write(folder / f"{stem}.json")
    return folder / f"{stem}.json"
