"""What an ablation finds: the content of ``ablation.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from spurbench.core.documents import Document, Share
from spurbench.studies.ablation.plan import Variation

SCHEMA: Literal["spurbench.ablation/2"] = "spurbench.ablation/2"

Part = Literal["phi", "panel", "unseen"]

#: what part a classifier had in the images -> how the tables call such classifiers.
PARTS: dict[Part, str] = {
    "phi": "phi of the similarity loss",
    "panel": "rest of the panel, which chose the references",
    "unseen": "no part in the images",
}

#: measure -> (heading, what it is); shares but for the last two.
MEASURES = {
    "spurious_accuracy": ("spurious accuracy", "images called the class, mean over the panel"),
    "consistently_spurious": ("consistently spurious", "images that the whole panel calls so"),
    "object_absent": ("object absent", "to the object detector"),
    "feature_present": ("feature present", "to the same"),
    "novelty": (
        "novelty",
        "no copies of references, to a detector that errs on 5 % of real images not trained on",
    ),
    "diversity": ("diversity", "mean pairwise cosine distance"),
    "seconds": ("seconds", "prior, fine-tuning and sampling of a class"),
}


class Measures(Document):
    """What is measured of images, as :data:`MEASURES` says; None where nothing tells."""

    spurious_accuracy: Share
    consistently_spurious: Share | None
    object_absent: Share | None
    feature_present: Share | None
    novelty: Share | None
    diversity: float


class BuildMeasures(Measures):
    """The measures of generated images, and what they cost."""

    seconds: float = Field(ge=0)


class Estimate(Document):
    """A mean over seeds with its 95 % t-interval, which one seed does not have."""

    mean: float
    low: float | None
    high: float | None


class Compared(Document):
    """The spurious accuracy of a classifier, or the mean of several, against the baseline."""

    seeds: tuple[Share, ...]
    spurious_accuracy: Estimate
    against_baseline: Estimate = Field(description="difference, paired by seed")


class RealResult(Document):
    """What was found of the real images."""

    classes: dict[str, Measures]
    mean: Measures = Field(description="over classes")
    classifiers: dict[str, Share] = Field(description="spurious accuracy, mean over classes")
    parts: dict[Part, Share] = Field(description="the same, mean over the classifiers of a part")


class VariationResult(Variation):
    """What was found of a variation."""

    summary: dict[str, Estimate | None] = Field(description="by measure, means over classes")
    against_baseline: dict[str, Estimate | None] = Field(description="differences, paired by seed")
    classifiers: dict[str, Compared]
    parts: dict[Part, Compared]
    classes: dict[str, BuildMeasures] = Field(description="means over seeds")
    seeds: dict[int, dict[str, BuildMeasures]] = Field(description="by seed and class")


class Ablation(Document):
    """The content of ``ablation.json``."""

    schema_version: Literal["spurbench.ablation/2"] = Field(default=SCHEMA, alias="schema")
    recipe: str
    overrides: tuple[str, ...]
    baseline: str
    seeds: tuple[int, ...]
    device: str
    feature_space: str
    classifiers: dict[str, Part] = Field(description="label to part in the images")
    unseen: tuple[dict[str, Any], ...] = Field(description="what their answers depend on")
    versions: dict[str, str]
    real: RealResult
    rows: tuple[VariationResult, ...]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json", by_alias=True)
