"""The images of a making and their controls, each with what the detector sees in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from spurbench.build.build import build
from spurbench.build.examine import Examined, examine
from spurbench.build.request import BuildRequest, Built
from spurbench.build.sampling import draw_prior, image_files
from spurbench.build.stages import select_references
from spurbench.build.workshop import Workshop, of_class, workshop
from spurbench.core.environment import one_thread
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.dataset.manifest import read_rows
from spurbench.dataset.rows import PartName, Row
from spurbench.engines.work import Engine
from spurbench.evaluation.copies import LEAST_UNSEEN, CopyDetector, calibrate
from spurbench.images.decode import decode_rgb
from spurbench.images.records import ImageRecord
from spurbench.images.sources import open_images
from spurbench.recipe.classes import SpuriousClass
from spurbench.studies.validity.answers import Role, Shown
from spurbench.studies.validity.doctored import doctored_files, reconstruct, square

TWINS: Mapping[PartName, Role] = {
    "controls-generated": "twin-base",
    "controls-finetuned-generated": "twin-finetuned",
}
"""The parts of a dataset that hold controls, and which these are."""


@dataclass(frozen=True)
class Pictured:
    """An image with what is known of it; the bytes are read when they are asked for."""

    record: ImageRecord
    shown: Shown


@dataclass(frozen=True)
class Made:
    """The images of one making.

    Attributes:
        images: in the order of classes and roles.
        seconds: what each class cost, by index; none for images that nobody made.
    """

    images: Sequence[Pictured]
    seconds: Mapping[int, float]


@dataclass(frozen=True)
class Source:
    """A world with one seed, from which images of any making come.

    Attributes:
        request: of a build with the recipe's own settings, in the store that all makings share.
        engine: has the stages of builds made.
    """

    request: BuildRequest
    engine: Engine | None

    def built(self, request: BuildRequest) -> Made:
        """Those of a build: the generated images and their twins."""
        built = build(request, self.engine)
        if built.failed:
            name, why = next(iter(built.failed.items()))
            raise SpurbenchError(
                f"{request.output.name}: class {name} failed: {why}; the same command goes on "
                "from here"
            )
        rows = read_rows(built.output)
        images = [_pictured(row, "image") for row in rows["generated"]]
        for part, role in TWINS.items():
            images += [_pictured(row, role) for row in rows[part]]
        return Made(images, {c.index: _seconds(built, c) for c in request.classes})

    def real(self) -> Made:
        """The photographs of each class that nothing is trained on."""
        return self._made(
            "real",
            {c.index: [r for r in own if not r.is_reference] for c, own in self._real.items()},
        )

    def references(self) -> Made:
        """The photographs of each class that generators are trained on."""
        return self._made("references", self._references)

    def doctored(self, folder: Path, images: int) -> Made:
        """The references, changed a little: what a test set of copies would be.

        Args:
            folder: where they are written, to be looked at.
            images: of each class.
        """
        records = {}
        for c in self.request.classes:
            paths = doctored_files(
                [record.read() for record in self._references[c.index]],
                images,
                seed=derive_seed(self.request.seed, "doctored", c.index),
                vae=self._shop.base.pipeline.vae,
                resolution=self.request.recipe.base.resolution,
                folder=folder / c.slug,
            )
            records[c.index] = [_record(path, c) for path in paths]
        return self._made("doctored", records)

    def judged(self, made: Made) -> Made:
        """The same with what the copy detector of the class says of each image."""
        judged = list(made.images)
        for c in self.request.classes:
            places = [
                i
                for i, pictured in enumerate(judged)
                if pictured.shown.class_index == c.index and pictured.shown.role == "image"
            ]
            detector = self._detector(c)
            if detector is not None and places:
                found = detector.copies([decode_rgb(judged[i].record.read()) for i in places])
                for i, copied in zip(places, found.tolist(), strict=True):
                    shown = replace(judged[i].shown, novel=not copied)
                    judged[i] = replace(judged[i], shown=shown)
        return replace(made, images=judged)

    def _detector(self, spurious_class: SpuriousClass) -> CopyDetector | None:
        """None where too few photographs were not trained on.

        These go through the autoencoder, as all that is judged did: images are a little more alike
        after it.
        """
        trained, others = (
            [decode_rgb(r.read()) for r in self._real[spurious_class] if r.is_reference is of]
            for of in (True, False)
        )
        if len(others) < LEAST_UNSEEN:
            return None
        vae, side = self._shop.base.pipeline.vae, self.request.recipe.base.resolution
        return calibrate(trained, [reconstruct(vae, square(image, side)) for image in others])

    def prior(self) -> Made:
        """What the untouched base makes of the generic prompt, for each class."""
        records = {}
        with one_thread():
            for c in self.request.classes:
                paths = image_files(draw_prior(self._shop, c))
                records[c.index] = [_record(path, c) for path in paths]
        return self._made("prior", records, "prior")

    @cached_property
    def _shop(self) -> Workshop:
        images = open_images(self.request.images, "real")
        return workshop(
            self.request, of_class(images), None, built=Built(output=self.request.output)
        )

    @cached_property
    def _real(self) -> dict[SpuriousClass, list[ImageRecord]]:
        """The photographs of each class, the references among them marked."""
        found = {}
        for c in self.request.classes:
            photographs = self._shop.photographs(c)
            if not photographs:
                raise SpurbenchError(
                    f"no images of class {c.index} ({c.name}) in {self.request.images}"
                )
            with one_thread():
                examined = examine(self._shop, c, photographs, "select")
            count = self.request.recipe.select.references
            chosen = select_references(c, [entry.panel for entry in examined], count)
            found[c] = [
                replace(record, is_reference=position in chosen)
                for position, record in enumerate(photographs)
            ]
        return found

    @cached_property
    def _references(self) -> dict[int, list[ImageRecord]]:
        return {c.index: [r for r in own if r.is_reference] for c, own in self._real.items()}

    def _made(
        self, name: str, records: Mapping[int, Sequence[ImageRecord]], role: Role = "image"
    ) -> Made:
        """Images that no build examined."""
        images = []
        for c in self.request.classes:
            with one_thread():
                examined = examine(self._shop, c, records[c.index], f"check {name}")
            images += [
                Pictured(record, _shown(c.index, entry, role))
                for record, entry in zip(records[c.index], examined, strict=True)
            ]
        return Made(images, {})


def _shown(class_index: int, examined: Examined, role: Role) -> Shown:
    return Shown(
        class_index=class_index,
        image_sha256=examined.image_sha256,
        role=role,
        object_absent=examined.object_absent,
        feature_present=examined.feature_present,
    )


def _pictured(row: Row, role: Role) -> Pictured:
    record = ImageRecord(
        row.file_name, row.class_index, row.source, row.image_sha256, row.read, row.class_name
    )
    shown = Shown(
        class_index=row.class_index,
        image_sha256=row.image_sha256,
        role=role,
        twin_of=row.twin_of,
        generator=row.replicate,
        object_absent=row.object_absent,
        feature_present=row.feature_present,
    )
    return Pictured(record, shown)


def _record(path: Path, spurious_class: SpuriousClass) -> ImageRecord:
    return ImageRecord.from_file(
        path,
        class_index=spurious_class.index,
        source="generated",
        class_name=spurious_class.name,
        spurious_feature=spurious_class.spurious_feature,
    )


def _seconds(built: Built, spurious_class: SpuriousClass) -> float:
    """What a class costs, shared priors counted in full."""
    subjects = (spurious_class.slug, spurious_class.prior_subject)
    return sum(
        seconds
        for (subject, label), (seconds, _) in built.seconds.items()
        if subject in subjects and label.partition(",")[0] in ("prior", "fine-tune", "sample")
    )
