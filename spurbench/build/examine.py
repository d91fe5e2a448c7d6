"""What is said of each image: the panel's answers, what the detector sees, its quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from spurbench.build.workshop import Workshop
from spurbench.core import atomic
from spurbench.core.progress import tracked
from spurbench.dataset import quality
from spurbench.evaluation import panel
from spurbench.images.decode import decode_rgb
from spurbench.images.records import Answer, ImageRecord
from spurbench.recipe.classes import SpuriousClass


@dataclass(frozen=True)
class Examined:
    """What the panel and the detector say of one image; None where there is no detector."""

    image_sha256: str
    panel: tuple[Answer, ...]
    consistently_spurious: bool
    object_score: float | None
    object_absent: bool | None
    feature_score: float | None
    feature_present: bool | None


def examine(
    shop: Workshop, spurious_class: SpuriousClass, records: Sequence[ImageRecord], label: str
) -> list[Examined]:
    """Stages 1 and 6: the panel's answers and the object's presence, for each image."""
    check = shop.request.recipe.check

    def make(folder: Path) -> None:
        answers = panel.ask(shop.panel, records)
        objects: Sequence[float | None] = [None] * len(records)
        features: Sequence[float | None] = [None] * len(records)
        if shop.detector is not None:
            images = [decode_rgb(record.read()) for record in records]
            objects = shop.detector.scores(images, spurious_class, "object")
            features = shop.detector.scores(images, spurious_class, "feature")
        entries = [
            Examined(
                image_sha256=record.sha256,
                panel=tuple(entry),
                consistently_spurious=panel.consistently_spurious(entry),
                object_score=thing,
                object_absent=None if thing is None else thing < check.object_threshold,
                feature_score=feature,
                feature_present=None if feature is None else feature >= check.feature_threshold,
            )
            for record, entry, thing, feature in zip(
                records, answers, objects, features, strict=True
            )
        ]
        atomic.write_json(folder / "examined.json", [asdict(entry) for entry in entries])

    inputs = {
        "class": spurious_class.index,
        "images": [record.sha256 for record in records],
        "panel": panel.fingerprint(shop.panel),
        "detector": shop.detector.name if shop.detector else None,
        "queries": [spurious_class.object_query, spurious_class.feature_query],
        "thresholds": [check.object_threshold, check.feature_threshold],
    }
    stage = shop.run(spurious_class.slug, label, "examine", inputs, make)
    return [
        Examined(**{**entry, "panel": tuple(Answer(**answer) for answer in entry["panel"])})
        for entry in stage.json("examined.json")
    ]


def measure_quality(
    shop: Workshop, spurious_class: SpuriousClass, records: Sequence[ImageRecord], label: str
) -> list[dict[str, float | None]]:
    """Stage 6's image quality; null for a metric whose weights can't be had here."""
    metrics = shop.request.recipe.check.quality
    available = quality.available(metrics, shop.device)
    columns: dict[str, list[float | None]] = {}
    for metric in metrics:
        if metric not in available:
            columns[metric] = [None] * len(records)
            continue

        def make(folder: Path, metric: str = metric) -> None:
            images = (decode_rgb(record.read()) for record in records)
            shown = tracked(images, metric, len(records), unit="img")
            scores = quality.score(shown, metric, shop.device)
            atomic.write_json(folder / "scores.json", scores)

        inputs = {"images": [record.sha256 for record in records], "metric": metric}
        stage = shop.run(spurious_class.slug, f"{label}: {metric}", "quality", inputs, make)
        columns[metric] = stage.json("scores.json")
    return [{m: scores[i] for m, scores in columns.items()} for i in range(len(records))]
