"""Datasets of small pictures and results of made-up classifiers on them, files and all."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
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
COLUMNS = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        **dict.fromkeys(("image_sha256", "twin_of", "source", "file_name"), pa.string()),
        **dict.fromkeys(("class_name", "spurious_feature"), pa.string()),
        **dict.fromkeys(("class_index", "replicate"), pa.int64()),
        **dict.fromkeys(("object_absent", "feature_present", "is_reference"), pa.bool_()),
    }
)
OTHER = 7  # what a classifier answers that is not fooled


def noise(split: str, index: int, i: int) -> Image.Image:
    """A picture of four blocks that differs for every image."""
    rng = np.random.default_rng([*split.encode(), index, i])
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
    positives: int = 0,
    controls: bool = False,
    replicates: int = 1,
    known: Callable[[str, int, int], dict] = lambda *_: {},
    curated: bool = False,
    panel: Sequence[str] = (),
    phi: str = "phi",
) -> ImageSet:
    """A folder that ``open_images`` takes for a dataset of ``spurbench build``.

    Args:
        folder: to be made.
        name: of the dataset.
        version: of the dataset.
        images: of each class and split.
        classes: ImageNet-1k indices.
        picture: an image, by part, class and number.
        positives: images of each class that show it.
        controls: whether each generated image has a twin.
        replicates: generators, that made as many images each.
        known: other columns of an image, by part, class and number.
        curated: whether there is a config of the object-free images.
        panel: weights_sha256 of the classifiers that chose.
        phi: weights_sha256 of the one whose features were optimised.
    """
    (folder / "data").mkdir(parents=True)

    def row(part: str, index: int, i: int) -> dict:
        buffer = io.BytesIO()
        picture(part, index, i).save(buffer, "PNG")
        made = part != "real"
        return {
            "image": {"bytes": buffer.getvalue(), "path": None},
            "image_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "twin_of": None,
            "class_index": index,
            "source": "generated" if made else "real",
            "file_name": f"{part}/{index}/{i}.png",
            "class_name": imagenet_names()[index],
            "spurious_feature": FEATURES.get(index),
            "object_absent": None,
            "feature_present": None,
            "is_reference": False,
            "replicate": i % replicates if part in ("generated", "controls") else 0,
            **known(part, index, i),
        }

    parts = {
        "real": [row("real", index, i) for index in classes for i in range(images)],
        "generated": [row("generated", index, i) for index in classes for i in range(images)],
        "positives-generated": [
            row("positives", index, i) for index in classes for i in range(positives)
        ],
        "controls-generated": [
            row("controls", index, i) | {"twin_of": row("generated", index, i)["image_sha256"]}
            for index in classes
            for i in range(images * controls)
        ],
    }
    if curated:
        for split in ("real", "generated"):
            parts[f"curated-{split}"] = [row for row in parts[split] if row["object_absent"]]
    for part, rows in parts.items():
        if rows:
            table = pa.Table.from_pylist(rows, schema=COLUMNS)
            pq.write_table(table, folder / f"data/{part}-00000.parquet")
    manifest = {
        "schema": "spurbench.dataset/2",
        "name": name,
        "version": version,
        "files": {f"data/{file.name}": file_sha256(file) for file in (folder / "data").iterdir()},
        "provenance": {
            "panel": [{"weights_sha256": weights} for weights in panel],
            "phi": {"weights_sha256": phi},
        },
    }
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
        shares: by split, and by class where they differ; of positives, where there are any, all
            are called their class.
        source: of the classifier.
        architecture: of the classifier.
        renamed: other text for the classes' ``name`` and ``spurious_feature``.
        seed: other than 0 shuffles which images fool.
    """
    rng = np.random.default_rng(seed)
    rows = []
    groups: dict[tuple[str, int], list] = {}
    positives = images.positives
    for record in (*images.records, *(positives.records if positives else ())):
        groups.setdefault((record.source, record.class_index), []).append(record)
    for (split, index), records in groups.items():
        share = {"positive": 1.0, **shares}[split]
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
                    "replicate": record.replicate,
                    "object_absent": record.object_absent,
                    "is_reference": record.is_reference,
                    "twin_of": record.twin_of,
                    "counted": record.object_absent is not False and not record.is_reference,
                    "prediction": index if is_fooled else OTHER,
                    "predicted_wnid": imagenet_wnids()[index if is_fooled else OTHER],
                    "probability": rng.uniform(0.6, 0.99) if is_fooled else rng.uniform(0, 0.3),
                    "rank": 1 if is_fooled else 2,
                }
            )
    frame = pd.DataFrame(rows)
    splits = {s: summarise(frame[frame["source"].isin([s, "positive"])]) for s in shares}
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
        positives=positives.info if positives else None,
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
