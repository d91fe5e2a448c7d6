"""From labels to a folder that `spurbench build --data` takes: pairs, and candidates of references.

OUTPUT/classes.toml                                       a pair for each class
OUTPUT/spurious_class_094_hummingbird_component_2/1.png   candidates, the likeliest first
OUTPUT/export.json                                        where each comes from, who said what
OUTPUT/recipe.toml                                        if asked for: the pairs as a recipe
"""

from __future__ import annotations

import heapq
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from spurbench.classifiers.classifier import Classifier, transform
from spurbench.core import atomic
from spurbench.core.documents import Document, Share
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.core.progress import progress
from spurbench.core.resources import builders
from spurbench.discovery.cut import cut, free_squares
from spurbench.discovery.documents import (
    COMPONENTS,
    ClassFound,
    Discovery,
    found_classes,
)
from spurbench.discovery.lens import scaled
from spurbench.discovery.neural_pca import Components
from spurbench.discovery.supervise.labels import (
    FILE,
    Box,
    Labels,
    Mark,
    Verdict,
    agreements,
    spurious_by_all,
)
from spurbench.evaluation import panel
from spurbench.evaluation.members import Member
from spurbench.images.decode import decode_rgb
from spurbench.images.pixels import decode, default_decoders
from spurbench.images.records import ImageRecord
from spurbench.images.sources import IMAGE_SUFFIXES, class_folders, open_images, open_positives
from spurbench.recipe.classes import SpuriousClass

log = logging.getLogger(__name__)

EXPORT: Final = "export.json"
NOWHERE = -1
"""Class index of a pool's images that are of no class."""


class Candidate(Document):
    """An image that shows a feature and, as far as people say, not the class.

    Attributes:
        file: in the class's folder.
        origin: image that it is, or was cut from.
        kind: whole: a top image without the object; cut: the part of one beside it; pool: one of
            the images in which candidates were looked for.
        is_class: whether the classifier that was looked into calls it the class.
        alpha: of the component.
        called: whether each classifier that was asked calls it the class, by name.
    """

    file: str
    origin: str
    kind: Literal["whole", "cut", "pool"]
    is_class: bool
    alpha: float
    called: dict[str, bool] = Field(default_factory=dict)

    @property
    def order(self) -> tuple[bool, float, str]:
        """Of the likeliest first: a reference must be called the class, whatever its alpha."""
        return not self.is_class, -self.alpha, self.origin


class Pair(Document):
    """A class, the feature that people found in it, and its candidates."""

    folder: str
    index: int
    component: int
    feature: str
    noun: str
    candidates: tuple[Candidate, ...]
    called: dict[str, Share] = Field(description="of the candidates, by classifier")
    by_all: int | None = Field(description="candidates that all call the class; null: none asked")


class Export(Document):
    """What was exported, and on whose word."""

    schema_version: Literal["spurbench.discovery-export/1"] = Field(
        default="spurbench.discovery-export/1", alias="schema"
    )
    classifier: str
    weights_sha256: str
    verdicts: tuple[Verdict, ...]
    agreement: tuple[dict[str, object], ...]
    pairs: tuple[Pair, ...]


@dataclass
class _Chosen:
    """A component that is exported, and what was collected for it."""

    found: ClassFound
    components: Components
    pair: SpuriousClass
    images: list[tuple[Candidate, bytes]] = field(default_factory=list)

    @property
    def position(self) -> int:
        return self.pair.component - 1


def export(
    folder: Path,
    output: Path,
    *,
    pool: Path | None = None,
    confirm: Sequence[str] = (),
    count: int = 75,
    extends: str | None = None,
    device: torch.device,
) -> Export:
    """Write the components that everyone who labelled them calls spurious; one for each class.

    Args:
        folder: of the discovery.
        output: a new folder, or an earlier export, which is replaced.
        pool: folder of images in which candidates are looked for: in ImageNet's layout, where a
            class's own folder is left out, or with the images directly in it.
        confirm: classifiers that are asked whether the candidates are the class.
        count: candidates of each class at most; first those that the classifier which was looked
            into calls the class, of these the ones with the highest alpha.
        extends: embedded recipe that the pairs and candidates are made a recipe of; None: none.
        device: where classifiers run.

    Raises:
        SpurbenchError: if nothing is labelled spurious, feature or noun are not named, there is no
            candidate of a class, a classifier can't be had or is another than was looked into,
            there is no such recipe, or the output holds something else.
    """
    if output.exists() and any(output.iterdir()) and not (output / EXPORT).is_file():
        raise SpurbenchError(f"{output} holds something else; name a new folder")
    if extends is not None and extends not in builders():
        raise SpurbenchError(f"--extends {extends!r} is none of {', '.join(builders())}")
    discovery, labels = Discovery.read(folder), Labels(folder / FILE)
    others = [Member.parse(spec) for spec in confirm]
    verdicts, marks = labels.verdicts(), labels.marks()
    chosen = _choose(folder, verdicts)
    info = discovery.classifier
    classifier = Member.parse(info.spec).load(device)
    if classifier.info.weights_sha256 != info.weights_sha256:
        raise SpurbenchError(f"{info.spec} is not the classifier any more that was looked into")
    for one in chosen:
        one.images += _of_top_images(one, marks, discovery, classifier)
    if pool is not None:
        _search(pool, chosen, discovery, classifier, count)
    for one in chosen:
        one.images.sort(key=lambda image: image[0].order)
        if not one.images:
            raise SpurbenchError(
                f"no candidate of {one.pair.name}: mark on the page where its object is, or is "
                "not, in the top images, or give --pool with images that lack it"
            )
    with atomic.folder(output) as new:
        for one in chosen:
            one.images = _named(one.images[:count])
            (new / one.pair.folder).mkdir()
            for candidate, data in one.images:
                (new / one.pair.folder / candidate.file).write_bytes(data)
        (new / "classes.toml").write_text(_toml([one.pair for one in chosen]), encoding="utf-8")
        if extends is not None:
            (new / "recipe.toml").write_text(_recipe(extends, info.name), encoding="utf-8")
        written = Export(
            classifier=info.name,
            weights_sha256=info.weights_sha256,
            verdicts=tuple(verdicts),
            agreement=tuple(asdict(agreement) for agreement in agreements(verdicts)),
            pairs=tuple(_confirmed(chosen, new, others, device)),
        )
        text = written.model_dump_json(by_alias=True, indent=2)
        (new / EXPORT).write_text(text + "\n", encoding="utf-8")
    return written


def _choose(folder: Path, verdicts: Sequence[Verdict]) -> list[_Chosen]:
    """Of each class the first component that all call spurious."""
    spurious = spurious_by_all(verdicts)
    chosen = []
    for path, found in found_classes(folder):
        numbers = [number for index, number in spurious if index == found.index]
        if not numbers:
            continue
        if len(numbers) > 1:
            others = ", ".join(map(str, numbers[1:]))
            log.info(
                "%s: component %d is exported; a class has one pair, so %s not",
                found.name,
                numbers[0],
                others,
            )
        said = spurious[found.index, numbers[0]]
        feature = next((verdict.feature for verdict in said if verdict.feature), None)
        noun = next((verdict.noun for verdict in said if verdict.noun), None)
        if not feature or not noun:
            lacking = "its kind" if feature else "what it shows"
            raise SpurbenchError(
                f"component {numbers[0]} of {found.name} is called spurious, and nobody says "
                f"{lacking}; say so on the page"
            )
        pair = SpuriousClass(
            index=found.index,
            wnid=imagenet_wnids()[found.index],
            name=imagenet_names()[found.index],
            spurious_feature=feature,
            component=numbers[0],
            noun=noun,
        )
        chosen.append(_Chosen(found, Components.load(path / COMPONENTS), pair))
    if not chosen:
        raise SpurbenchError(
            f"no component in {folder} is called spurious by all who labelled it; label some with "
            f"`spurbench discover supervise {folder}`"
        )
    return chosen


def _of_top_images(
    one: _Chosen, marks: Sequence[Mark], discovery: Discovery, classifier: Classifier
) -> Iterator[tuple[Candidate, bytes]]:
    """The top images that people marked: whole where the object is not there, else beside it."""
    boxes_of: dict[str, list[Box]] = {}
    for mark in marks:
        if mark.index == one.pair.index:
            boxes_of.setdefault(mark.sha256, []).extend(mark.boxes or ())
    preprocessing = discovery.preprocessing
    read = transform(preprocessing)
    for picture in one.found.components[one.position].pictures:
        if picture.sha256 not in boxes_of:
            continue
        data = _read(Path(discovery.images) / picture.path, picture.sha256)
        boxes = boxes_of[picture.sha256]
        image = decode_rgb(data)
        areas = list(free_squares(boxes)) if boxes else []
        parts = [cut(image, area, preprocessing) for area in areas] if boxes else [image]
        if not parts:
            log.info("%s: no part of %s is free of the object", one.pair.name, picture.path)
            continue
        features, called = _seen(torch.stack([read(part) for part in parts]), classifier)
        alphas = one.components.alphas(features)[:, one.position]
        candidates = [
            Candidate(
                file="",
                origin=picture.path,
                kind="cut" if boxes else "whole",
                is_class=wnid == one.pair.wnid,
                alpha=alpha,
            )
            for wnid, alpha in zip(called, alphas.tolist(), strict=True)
        ]
        best = min(range(len(parts)), key=lambda i: candidates[i].order)
        yield candidates[best], _png(parts[best]) if boxes else data


def _search(
    pool: Path,
    chosen: Sequence[_Chosen],
    discovery: Discovery,
    classifier: Classifier,
    count: int,
) -> None:
    """Add a pool's likeliest images; it is gone through once for all."""
    records = _pool(pool)
    kept: list[list[tuple[bool, float, int]]] = [[] for _ in chosen]
    batches = decode(
        records,
        discovery.preprocessing,
        batch_size=classifier.default_batch_size,
        decoders=default_decoders(),
    )
    with progress(str(pool), len(records), unit="img") as advance:
        for batch in batches:
            advance(len(batch.positions) + len(batch.damaged))
            if not len(batch.positions):
                continue
            assert isinstance(batch.pixels, torch.Tensor)
            features, called = _seen(batch.pixels, classifier)
            positions = batch.positions.tolist()
            for one, best in zip(chosen, kept, strict=True):
                alphas = one.components.alphas(features)[:, one.position].tolist()
                for position, wnid, alpha in zip(positions, called, alphas, strict=True):
                    if records[position].class_index != one.pair.index:
                        heapq.heappush(best, (wnid == one.pair.wnid, alpha, -position))
                        if len(best) > count:
                            heapq.heappop(best)
    for one, best in zip(chosen, kept, strict=True):
        for is_class, alpha, negative in best:
            record = records[-negative]
            found = Candidate(
                file="", origin=record.path, kind="pool", is_class=is_class, alpha=alpha
            )
            one.images.append((found, record.read()))


@torch.inference_mode()
def _seen(pixels: torch.Tensor, classifier: Classifier) -> tuple[NDArray[np.float32], list[str]]:
    """Features (N, D) of images as bytes, and what the classifier calls each, by WordNet id."""
    features, logits = classifier.features_and_logits(scaled(pixels, classifier))
    called = [classifier.wnids[column] for column in logits.argmax(dim=1).tolist()]
    return features.float().cpu().numpy(), called


def _pool(folder: Path) -> Sequence[ImageRecord]:
    if class_folders(folder):
        return open_positives(folder, decode=False).records
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise SpurbenchError(f"--pool {folder} holds no images, nor folders of ImageNet's layout")
    return [
        ImageRecord.from_file(file, class_index=NOWHERE, source="negative", class_name="")
        for file in files
    ]


def _confirmed(
    chosen: Sequence[_Chosen], folder: Path, others: Sequence[Member], device: torch.device
) -> Iterator[Pair]:
    """The pairs, with the answers of other classifiers to their candidates."""
    called: Mapping[str, dict[str, bool]] = {}
    if others:
        records = open_images(str(folder), "real").records
        answers = panel.ask([member.load(device) for member in others], records)
        called = {
            record.path: {answer.classifier: answer.rank == 1 for answer in own}
            for record, own in zip(records, answers, strict=True)
        }
    for one in chosen:
        candidates = [
            candidate.model_copy(
                update={"called": called.get(f"{one.pair.folder}/{candidate.file}", {})}
            )
            for candidate, _ in one.images
        ]
        asked = [candidate.called for candidate in candidates if candidate.called]
        yield Pair(
            folder=one.pair.folder,
            index=one.pair.index,
            component=one.pair.component,
            feature=one.pair.spurious_feature,
            noun=one.pair.noun,
            candidates=tuple(candidates),
            called={name: sum(c[name] for c in asked) / len(asked) for name in asked[0]}
            if asked
            else {},
            by_all=sum(all(c.values()) for c in asked) if others else None,
        )


def _named(images: Sequence[tuple[Candidate, bytes]]) -> list[tuple[Candidate, bytes]]:
    """Files in their order: 1.png, 2.jpeg, ...."""
    named = []
    for number, (candidate, data) in enumerate(images, start=1):
        cut_out = candidate.kind == "cut"
        suffix = ".png" if cut_out else Path(candidate.origin).suffix.lower()
        named.append((candidate.model_copy(update={"file": f"{number}{suffix}"}), data))
    return named


def _read(path: Path, sha256: str) -> bytes:
    try:
        record = ImageRecord.from_file(path, class_index=NOWHERE, source="positive", class_name="")
    except FileNotFoundError:
        raise SpurbenchError(f"no image at {path}, where it was found; put it back") from None
    if record.sha256 != sha256:
        raise SpurbenchError(f"{path} is not the image any more that was found; put that back")
    return record.read()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _toml(pairs: Sequence[SpuriousClass]) -> str:
    """The pairs as ``classes.toml``."""
    tables = [
        "\n".join(["[[classes]]", *_assigned(pair.model_dump(exclude_defaults=True))])
        for pair in pairs
    ]
    return "\n\n".join(tables) + "\n"


def _recipe(extends: str, classifier: str) -> str:
    """A recipe whose pairs and photographs lie beside it."""
    values = {
        "extends": extends,
        "name": f"{extends}-discovered",
        "description": f"{extends} with the spurious features that were found in {classifier}.",
    }
    data = {"images": ".", "licence": "that of the images they were found in"}
    return "\n".join([*_assigned(values), "", "[data]", *_assigned(data)]) + "\n"


def _assigned(values: Mapping[str, object]) -> list[str]:
    """Keys and values of TOML; JSON's strings are TOML's too, unless it escapes surrogates."""
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
