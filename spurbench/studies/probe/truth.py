"""A probe against the planted truth: ``spurbench mini probe``.

The world can render a scene whose feature alone is recoloured, flattened or reshaped. How often
that changes a classifier's answer is the truth; the probe's edits see nothing but the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from spurbench.classifiers.info import display_name
from spurbench.core import markdown
from spurbench.core.documents import Document, Share
from spurbench.core.environment import environment
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names
from spurbench.core.scratch import scratch
from spurbench.evaluation.members import Member
from spurbench.evaluation.predict import predict
from spurbench.evaluation.results import Rate
from spurbench.images.pixels import PixelStore
from spurbench.images.records import ImageRecord
from spurbench.mini.distributions import spurious
from spurbench.mini.preview import png
from spurbench.mini.scenes import EDITS as EXACT
from spurbench.mini.scenes import PLANTED_FEATURE, render
from spurbench.mini.scenes import Edit as ExactEdit
from spurbench.studies.probe.ask import edited_record
from spurbench.studies.probe.edits import EDITS, Aspect, feature_mask
from spurbench.studies.probe.measure import UNCHANGED, rate

SCHEMA: Literal["spurbench.probe-truth/1"] = "spurbench.probe-truth/1"

DATA_SET = "probe"
"""Name of the scenes, which are thus none of the ``real`` split's."""

CALLED = 10
"""Of a class and a classifier so many scenes must be called the class as they are; of fewer the
share that changes says too little."""

MEANT: Mapping[ExactEdit, Aspect] = {
    "recoloured": "colour",
    "flattened": "texture",
    "reshaped": "shape",
}
"""What each exact edit takes from the feature, as the probe's edits of that aspect mean to."""


class PairTruth(Document):
    """A classifier and a class: shares of the scenes called the class that no longer are."""

    classifier: str
    class_name: str
    called: int = Field(ge=0, description="scenes called the class as they are")
    exact: dict[ExactEdit, Rate] = Field(description="with the feature rendered anew; of called")
    probed: dict[str, Rate] = Field(description="by the probe's edits, by name; of called")


class Agreement(Document):
    """An edit of the probe against an exact one, over pairs of class and classifier."""

    edit: str
    exact: ExactEdit
    meant: bool = Field(description="both take the same from the feature")
    pairs: int = Field(ge=2)
    tau: float | None = Field(
        ge=-1, le=1, description="Kendall's tau-b; null where one of the two is the same in all"
    )
    mean_absolute_difference: Share


class ProbeTruth(Document):
    """What ``spurbench mini probe`` writes."""

    schema_version: Literal["spurbench.probe-truth/1"] = Field(default=SCHEMA, alias="schema")
    seed: int = Field(description="of the scenes, and of what the edits draw")
    scenes: int = Field(description="per class")
    mask_overlap: dict[str, Share] = Field(
        description="by class: mean over scenes of intersection over union of the probe's mask and "
        "the pixels that the feature truly touches"
    )
    pairs: tuple[PairTruth, ...]
    agreement: tuple[Agreement, ...] = Field(
        description=f"over the pairs with at least {CALLED} scenes called the class"
    )
    environment: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json", by_alias=True)


def measure_truth(
    members: Sequence[Member], *, scenes: int, seed: int, device: torch.device
) -> ProbeTruth:
    """Probe fresh object-free scenes, and render what the probe only guesses at.

    Args:
        members: the classifiers.
        scenes: per class.
        seed: of the scenes, and of what the edits draw.
        device: where the classifiers run.

    Raises:
        SpurbenchError: if a classifier can't be loaded, lacks a class or has the name of another,
            or there are too few scenes to call, or too few pairs of class and classifier in which
            they are.
    """
    if scenes < CALLED:
        raise SpurbenchError(f"scenes is {scenes}; give at least {CALLED}")
    asked = {name: _Asked.of(name, scenes, seed) for name in PLANTED_FEATURE}
    pairs: list[PairTruth] = []
    with scratch() as folder:
        store = PixelStore(folder)
        for member in members:
            classifier = member.load(device)
            label = display_name(classifier.info.name, classifier.info.checkpoint)
            if label in {pair.classifier for pair in pairs}:
                raise SpurbenchError(f"two classifiers are called {label}; probe them apart")
            for name, of_class in asked.items():
                records = [record for own in of_class.records.values() for record in own]
                called = predict(classifier, records, store=store).rank == 1
                table = dict(zip(of_class.records, called.reshape(-1, scenes), strict=True))
                pairs.append(_pair(label, name, table))
    return ProbeTruth(
        seed=seed,
        scenes=scenes,
        mask_overlap={name: of_class.mask_overlap for name, of_class in asked.items()},
        pairs=tuple(pairs),
        agreement=agreement(pairs),
        environment=environment(device),
    )


def agreement(pairs: Sequence[PairTruth]) -> tuple[Agreement, ...]:
    """Each of the probe's edits against each exact one, over the pairs that say enough.

    Raises:
        SpurbenchError: if fewer than two do.
    """
    from scipy.stats import kendalltau

    kept = [pair for pair in pairs if pair.called >= CALLED]
    if len(kept) < 2:
        raise SpurbenchError(
            f"{len(kept)} of {len(pairs)} pairs of class and classifier have {CALLED} scenes that "
            "are called the class; give more --scenes or other classifiers"
        )
    found = []
    for exact in EXACT:
        truth = np.array([pair.exact[exact].share for pair in kept])
        for edit in EDITS:
            shares = np.array([pair.probed[edit.name].share for pair in kept])
            tau = float(kendalltau(shares, truth).statistic)
            found.append(
                Agreement(
                    edit=edit.name,
                    exact=exact,
                    meant=MEANT[exact] == edit.aspect,
                    pairs=len(kept),
                    tau=None if np.isnan(tau) else tau,
                    mean_absolute_difference=float(np.abs(shares - truth).mean()),
                )
            )
    return tuple(found)


def render_markdown(truth: ProbeTruth) -> str:
    """The table of agreement, edits that mean the same in bold, then the truth by pair."""
    by_edit = {(a.edit, a.exact): a for a in truth.agreement}
    rows = []
    for edit in EDITS:
        cells = []
        for exact in EXACT:
            found = by_edit[edit.name, exact]
            tau = "–" if found.tau is None else f"{found.tau:.2f}"
            text = f"{tau}, {100 * found.mean_absolute_difference:.0f}"
            cells.append(f"**{text}**" if found.meant else text)
        rows.append([edit.title, edit.aspect, *cells])
    header = ["the probe's edit", "takes away", *EXACT]
    left: list[markdown.Alignment] = ["left", "left"]
    right: list[markdown.Alignment] = ["right"] * len(EXACT)
    table = markdown.table(header, left + right, rows)
    pairs = markdown.table(
        ["classifier", "class", "called", *EXACT],
        [*left, "right", *right],
        [
            [
                markdown.escape(pair.classifier),
                pair.class_name,
                str(pair.called),
                *(f"{100 * pair.exact[e].share:.0f}" if pair.called else "" for e in EXACT),
            ]
            for pair in truth.pairs
        ],
    )
    overlap = ", ".join(f"{name} {share:.2f}" for name, share in truth.mask_overlap.items())
    return (
        "Kendall's tau, and the mean absolute difference in points, over "
        f"{truth.agreement[0].pairs} pairs of class and classifier; {truth.scenes} scenes a class."
        f"\n\n{table}\n"
        "Answers that change when the feature is rendered anew, per cent of the scenes called the "
        f"class.\n\n{pairs}\n"
        f"Masks against the truth, intersection over union: {overlap}.\n"
    )


@dataclass(frozen=True)
class _Asked:
    """The scenes of a class: as they are, after each exact edit, and after each of the probe's.

    Attributes:
        records: N of each, by the edit's name.
        mask_overlap: see :class:`ProbeTruth`.
    """

    records: dict[str, list[ImageRecord]]
    mask_overlap: float

    @classmethod
    def of(cls, name: str, count: int, seed: int) -> _Asked:
        records: dict[str, list[ImageRecord]] = {}
        overlap = []
        for i in range(count):
            scene = spurious(name, seed, i, DATA_SET)
            shown, without = render(scene), render(replace(scene, subfamily=None))
            mask, touched = feature_mask(shown, without), (shown != without).any(axis=2)
            overlap.append((mask & touched).sum() / max(1, (mask | touched).sum()))
            image, twin = (scene_record(pixels, name, i) for pixels in (shown, without))
            own = {UNCHANGED: image}
            own |= {exact: scene_record(render(scene, exact), name, i) for exact in EXACT}
            own |= {edit.name: edited_record(image, twin, edit, seed) for edit in EDITS}
            for key, record in own.items():
                records.setdefault(key, []).append(record)
        return cls(records, float(np.mean(overlap)))


def scene_record(pixels: NDArray[np.uint8], name: str, i: int) -> ImageRecord:
    """Rendered scene ``i`` of a class's feature, as classifiers are shown it."""
    data = png(pixels)
    return ImageRecord(
        path=f"{name}/{i}",
        class_index=imagenet_names().index(name),
        source="generated",
        sha256=hashlib.sha256(data).hexdigest(),
        read=partial(bytes, data),
        class_name=name,
        spurious_feature=PLANTED_FEATURE[name],
    )


def _pair(label: str, name: str, called: Mapping[str, NDArray[np.bool_]]) -> PairTruth:
    shown = called[UNCHANGED]
    lost = {key: rate(~own[shown]) for key, own in called.items() if shown.any()}
    return PairTruth(
        classifier=label,
        class_name=name,
        called=int(shown.sum()),
        exact={exact: lost[exact] for exact in EXACT if lost},
        probed={edit.name: lost[edit.name] for edit in EDITS if lost},
    )
