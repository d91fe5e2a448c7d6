"""What the stages of every class share: the loaded models, the images and the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spurbench.build.request import BuildRequest, Built
from spurbench.build.store import Stage, StageStore
from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.detectors import ObjectDetector, load_detector
from spurbench.core import atomic
from spurbench.core.environment import choose_device, device_name
from spurbench.diffusion.base import Decoder, TextToImage, load_base, load_decoder
from spurbench.evaluation import panel
from spurbench.images.records import ImageRecord, ImageSet
from spurbench.images.sources import open_images, open_positives
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.schema import Recipe

log = logging.getLogger(__name__)

# A stage's revision is raised when its code changes what it writes, so that stored output of the
# old code is not taken for that of the new.
REVISIONS = {
    "prior": 3,
    "finetune": 3,
    "sample": 3,
    "contexts": 1,
    "controls": 2,
    "positives": 2,
    "examine": 3,
    "quality": 1,
}


OfClass = Callable[[SpuriousClass], Sequence[ImageRecord]]
"""The images of a class."""


@dataclass(frozen=True)
class Workshop:
    """The loaded models and images that every class's stages share."""

    request: BuildRequest
    base: TextToImage
    panel: tuple[Classifier, ...]
    phi: Classifier
    decoder: Decoder | None
    detector: ObjectDetector | None
    photographs: OfClass
    """The real images of a class, at least one."""
    positives: OfClass | None
    """Those of a class that were given; None: the base model makes them."""
    device: torch.device
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
        self.built.stages[subject, label] = stage
        if stage.reused:
            log.debug("%s: %s already there", subject, label)
        else:
            log.info("%s: %s done in %.1f s", subject, label, stage.seconds)
        return stage


def workshop(
    request: BuildRequest,
    photographs: OfClass,
    positives: OfClass | None,
    *,
    built: Built,
    run: str | None = None,
    complete: bool = False,
) -> Workshop:
    """Load the models of a build.

    Args:
        request: what is to be built.
        photographs: see :class:`Workshop`.
        positives: see :class:`Workshop`.
        built: where the stages are noted.
        run: see :class:`StageStore`.
        complete: see :class:`StageStore`; then nothing is computed, and the device may be another.

    Raises:
        SpurbenchError: if a model can't be had, or the device is not there.
    """
    recipe = request.recipe
    device = torch.device("cpu") if complete else choose_device(str(request.device))
    detector = recipe.check.object_detector
    base, phi, decoder = load_tuned(recipe, device)
    return Workshop(
        request=request,
        base=base,
        panel=panel.load_panel(recipe.panel.classifiers, relative_to=recipe.folder, device=device),
        phi=phi,
        decoder=decoder,
        detector=load_detector(recipe.locate(detector), device=device) if detector else None,
        photographs=photographs,
        positives=positives,
        device=device,
        store=StageStore(request.work, device=device_name(device), run=run, complete=complete),
        built=built,
    )


def load_tuned(
    recipe: Recipe, device: torch.device
) -> tuple[TextToImage, Classifier, Decoder | None]:
    """What fine-tuning needs: the base, phi, and the similarity loss's own decoder if any."""
    base = load_base(
        recipe.locate(recipe.base.model),
        revision=recipe.base.revision,
        device=device,
        scheduler=recipe.base.scheduler,
    )
    phi = panel.load_member(recipe.panel.phi, relative_to=recipe.folder, device=device)
    decoder = recipe.sfsl.decoder
    return base, phi, load_decoder(recipe.locate(decoder), device=device) if decoder else None


def of_class(images: ImageSet) -> OfClass:
    """The images of each class among many."""

    def records(spurious_class: SpuriousClass) -> Sequence[ImageRecord]:
        return [r for r in images.records if r.class_index == spurious_class.index]

    return records


def given_positives(request: BuildRequest) -> ImageSet | None:
    """The positives that were given, of all classes: one of them may have none."""
    if request.positives is None:
        return None
    return open_positives(request.positives, only={c.index for c in request.classes})


def read_class(request: BuildRequest) -> tuple[OfClass, OfClass | None]:
    """The photographs of a class, read when they are asked for, and the given positives."""
    data, positives = request.images, given_positives(request)

    def photographs(spurious_class: SpuriousClass) -> Sequence[ImageRecord]:
        return open_images(data, "real", only={spurious_class.index}).records

    return photographs, None if positives is None else of_class(positives)
