"""Images that a build's fine-tuned generators make of other prompts, from the same noise.

The weights are those in the build's stage store that made the dataset's own images: the stage whose
files are these images names them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from spurbench.build.sampling import draw_prompt, image_files
from spurbench.build.store import MARKER, Marker, Stage, StageStore
from spurbench.core.documents import read_json, validated
from spurbench.core.environment import device_name, one_thread
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import fingerprint
from spurbench.dataset.manifest import MANIFEST, Manifest, StoredRows
from spurbench.dataset.rows import Row
from spurbench.diffusion.base import TextToImage, load_base
from spurbench.images.records import ImageRecord
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.load import read_recipe
from spurbench.recipe.schema import Recipe
from spurbench.recipe.sections import Sample
from spurbench.studies.probe.ask import Question
from spurbench.studies.probe.results import Change

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generators:
    """Where a dataset's fine-tuned generators lie.

    Attributes:
        dataset: folder that a build made.
        store: the build's stage store.
        recipe: with the prompts to ask for, and where the base model is.
        device: where the images are sampled.
    """

    dataset: Path
    store: Path
    recipe: Recipe
    device: torch.device

    @classmethod
    def find(
        cls, data: str, store: Path | None, recipe: str | None, device: torch.device
    ) -> Generators | None:
        """Those of a dataset.

        Args:
            data: what was opened.
            store: None: the one that lies where a build puts it, if it is there.
            recipe: None: the one of the dataset's name.
            device: see :class:`Generators`.

        Returns:
            None without a store, or where nothing was generated.

        Raises:
            SpurbenchError: if a store was named and the data are no dataset, or there is no such
                recipe.
        """
        folder = Path(data)
        if not (folder / MANIFEST).is_file():
            if store is not None:
                raise SpurbenchError(f"{data} is no dataset of spurbench build; leave out --store")
            return None
        manifest = Manifest.read(folder)
        place = store or folder.parent / ".stages" / manifest.name
        if not place.is_dir() or "generated" not in manifest.counts:
            return None
        return cls(folder, place, read_recipe(recipe or manifest.name), device)

    def questions(self, images: Sequence[ImageRecord]) -> tuple[list[Change], list[Question]]:
        """The prompts, and what each made of the noise of generated images.

        A class whose own prompt is among them is not asked for it again.

        Args:
            images: of the dataset, as they are.

        Raises:
            SpurbenchError: if the recipe lacks a class or has another base model than the dataset
                was made from, the store lacks a generator, or phi steered the sampling.
        """
        with one_thread():  # as builds sample on a processor
            return self._questions(images)

    def _questions(self, images: Sequence[ImageRecord]) -> tuple[list[Change], list[Question]]:
        prompts = self.recipe.probe.prompts
        wanted = {image.sha256: image for image in images if image.source == "generated"}
        if not prompts or not wanted:
            return [], []
        groups: dict[tuple[int, int], list[Row]] = {}
        for row in StoredRows(self.dataset, "generated"):
            groups.setdefault((row.class_index, row.replicate), []).append(row)
        classes = self.recipe.classes.by_index()
        base, store = self._base(), StageStore(self.store, device=device_name(self.device))
        asked = []
        for (index, _), rows in groups.items():
            chosen = [row for row in rows if row.image_sha256 in wanted]
            if not chosen:
                continue
            if index not in classes:
                raise SpurbenchError(
                    f"recipe {self.recipe.name} has no class {index} ({rows[0].class_name}); give "
                    "the dataset's own with --recipe"
                )
            sampled, weights = self._weights(classes[index], rows)
            settings = Sample.model_validate(
                {k: v for k, v in sampled.inputs.items() if k in Sample.model_fields}
            )
            if settings.phi_guidance:
                raise SpurbenchError(
                    f"the images of {self.dataset} were steered by phi (sample.phi_guidance), "
                    "which those of other prompts are not; give --no-prompts"
                )
            for template in prompts:
                prompt = self.recipe.subject_prompt(template, classes[index])
                if prompt == self.recipe.instance_prompt(classes[index]):
                    continue
                stage = draw_prompt(
                    store,
                    base,
                    classes[index],
                    weights,
                    prompt,
                    [row.seed for row in chosen if row.seed is not None],
                    resolution=int(sampled.inputs["resolution"]),
                    settings=settings,
                )
                asked += [
                    Question(
                        wanted[row.image_sha256],
                        change(template).name,
                        ImageRecord.from_file(
                            file,
                            class_index=index,
                            source="generated",
                            class_name=classes[index].name,
                            name=f"{classes[index].slug}/{prompt}/{file.name}",
                        ),
                    )
                    for row, file in zip(chosen, image_files(stage), strict=True)
                ]
        made = {question.change for question in asked}
        return [c for c in map(change, prompts) if c.name in made], asked

    def _base(self) -> TextToImage:
        recipe = self.recipe.base
        base = load_base(
            self.recipe.locate(recipe.model),
            revision=recipe.revision,
            device=self.device,
            scheduler=recipe.scheduler,
        )
        made_from = Manifest.read(self.dataset).provenance.base_model
        if base.fingerprint != made_from.fingerprint:
            raise SpurbenchError(
                f"recipe {self.recipe.name} has another base model than {self.dataset} was made "
                f"from ({made_from.name}, {made_from.fingerprint[:12]}); give the dataset's own "
                "recipe with --recipe, or --no-prompts"
            )
        return base

    def _weights(self, spurious_class: SpuriousClass, rows: Sequence[Row]) -> tuple[Marker, Stage]:
        """The stage that sampled these images, and the fine-tuned weights that it names."""
        hashes = {row.image_sha256 for row in rows}
        folder = self.store / spurious_class.slug
        for path in sorted(folder.glob(f"sample-*/{MARKER}")):
            sampled = _marker(path)
            if not hashes <= set(sampled.files.values()):
                continue
            identity = str(sampled.inputs["weights"])
            weights = folder / f"finetune-{identity[:16]}"
            if (weights / MARKER).is_file():
                return sampled, Stage(weights, identity, 0, reused=True)
        raise SpurbenchError(
            f"{self.store} has no fine-tuned weights that made the images of "
            f"{spurious_class.name}; name the build's own --store, or give --no-prompts"
        )


def change(template: str) -> Change:
    """A prompt as a change."""
    name = f"prompt-{fingerprint(template)[:8]}"
    return Change(name=name, title=template, kind="prompt", aspect=None, inside=False)


def _marker(path: Path) -> Marker:
    return validated(Marker, read_json(path), str(path))
