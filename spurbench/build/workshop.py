"""What the stages of every class share: the loaded models, the images and the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spurbench.build.request import BuildRequest, Built
from spurbench.build.store import Stage, StageStore
from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.detectors import ObjectDetector
from spurbench.core import atomic
from spurbench.diffusion.base import Decoder, TextToImage
from spurbench.images.records import ImageSet

log = logging.getLogger(__name__)

# A stage's revision is raised when its code changes what it writes, so that stored output of the
# old code is not taken for that of the new.
REVISIONS = {
    "prior": 2,
    "finetune": 2,
    "sample": 2,
    "controls": 1,
    "positives": 1,
    "examine": 2,
    "quality": 1,
}


@dataclass(frozen=True)
class Workshop:
    """The loaded models and images that every class's stages share."""

    request: BuildRequest
    base: TextToImage
    panel: tuple[Classifier, ...]
    phi: Classifier
    decoder: Decoder | None
    detector: ObjectDetector | None
    images: ImageSet
    positives: ImageSet | None
    store: StageStore
    built: Built

    def run(
        self,
        subject: str,
        label: str,
        name: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], None],
    ) -> Stage:
        """A stage of the store, timed and said.

        Args:
            subject: whose it is, a class's slug or that of a prior's noun.
            label: what people read of it.
            name: of its revision and its folder.
            inputs: see :meth:`StageStore.run`.
            make: see :meth:`StageStore.run`.
        """
        with atomic.explained(self.store.root / subject):
            stage = self.store.run(subject, name, {"revision": REVISIONS[name], **inputs}, make)
        self.built.seconds[subject, label] = (stage.seconds, stage.reused)
        log.info(
            "%s: %s %s",
            subject,
            label,
            "already there" if stage.reused else f"done in {stage.seconds:.1f} s",
        )
        return stage
