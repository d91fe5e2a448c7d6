"""From a request to raw answers: every making of every world and seed, shown to every classifier.

What is finished is kept under the hash of all that it depends on; the same command goes on after an
interruption, and makes only what has changed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spurbench.build.request import BuildRequest
from spurbench.build.workshop import REVISIONS
from spurbench.classifiers.classifier import Classifier, transform
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256, fingerprint
from spurbench.engines.work import Engine
from spurbench.evaluation import metrics, panel
from spurbench.images.decode import decode_rgb
from spurbench.images.records import ImageRecord
from spurbench.recipe.load import read_recipe
from spurbench.recipe.schema import Recipe
from spurbench.studies.validity.answers import Collected, Key, Part, read, write
from spurbench.studies.validity.ask import ask
from spurbench.studies.validity.images import Made, Source
from spurbench.studies.validity.plan import PRIOR, Making, ValidityRequest, World

log = logging.getLogger(__name__)

REVISION = 1
"""Raised when what is asked, or how, changes."""

CONTROLS = Making(name=PRIOR, description="untouched base, the generic prompt", kind="prior")
"""The images that every making has as controls; else the recipe as it is."""


@dataclass(frozen=True)
class Members:
    """Who is asked in a world.

    Attributes:
        panel: those of the recipe.
        zoo: those that had no part in any image.
        left_out: names of those of the zoo that had one.
        phi: its features are the space of diversity.
    """

    panel: Sequence[Classifier]
    zoo: Sequence[Classifier]
    left_out: Sequence[str]
    phi: Classifier

    @cached_property
    def parts(self) -> dict[str, Part]:
        """Name to part."""
        names = [c.info.name for c in (*self.panel, *self.zoo)]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise SpurbenchError(f"two classifiers are called {min(twice)!r}; rename one's folder")
        return {name: "panel" if i < len(self.panel) else "zoo" for i, name in enumerate(names)}

    @property
    def weights(self) -> dict[str, str]:
        """Of the zoo, name to ``weights_sha256``."""
        return {c.info.name: c.info.weights_sha256 for c in self.zoo}


def load_members(request: ValidityRequest, world: World) -> Members:
    """Load the classifiers of a world.

    Raises:
        SpurbenchError: if one can't be loaded, or fewer than two of the zoo had no part in any
            image.
    """
    recipe = _recipe(request, world, CONTROLS)
    device = request.device
    chosen = panel.load_panel(recipe.panel.classifiers, relative_to=recipe.folder, device=device)
    zoo = panel.load_panel([str(f) for f in world.zoo], relative_to=Path(), device=device)
    phis = {_recipe(request, world, row).panel.phi: row for row in (CONTROLS, *request.rows)}
    loaded = [panel.load_member(spec, relative_to=recipe.folder, device=device) for spec in phis]
    involved = {c.info.weights_sha256 for c in (*chosen, *loaded)}
    left_out = [c.info.name for c in zoo if c.info.weights_sha256 in involved]
    if left_out:
        log.warning("%s: left out, for their part in images: %s", world.name, ", ".join(left_out))
    free = [c for c in zoo if c.info.weights_sha256 not in involved]
    if len(free) < 2:
        raise SpurbenchError(f"{len(free)} classifiers of {world.name}'s zoo had no part in images")
    return Members(chosen, free, left_out, loaded[0])


def collect(
    request: ValidityRequest, members: Mapping[str, Members], engine: Engine | None = None
) -> Iterator[tuple[Key, Collected, bool]]:
    """The answers of every world, seed and making, and whether they are new: others are read.

    A seed is finished in all worlds before the next one begins, so that an early look is possible.

    Args:
        request: what to compare.
        members: of each world by name.
        engine: has the stages of builds made.

    Raises:
        SpurbenchError: if an image can't be made, or can't be shown to a classifier.
    """
    for seed in request.seeds:
        for world in request.worlds:
            collector = _Collector(request, world, members[world.name], seed, engine)
            for making in (CONTROLS, *request.rows):
                yield Key(world.name, making.name, seed), *collector.answers(making)


def request_of(request: ValidityRequest, world: World, making: Making, seed: int) -> BuildRequest:
    """The build of a making; of one that is no build, that whose models and images it takes."""
    return BuildRequest(
        recipe=_recipe(request, world, making),
        classes=world.classes,
        data=None,
        output=request.output / "datasets" / world.name / f"{making.name}-seed{seed}",
        work=request.output / ".stages" / world.name,
        version="1.0.0",
        seed=seed,
        device=request.device,
        replicates=making.generators,
    )


def _recipe(request: ValidityRequest, world: World, making: Making) -> Recipe:
    """A world's recipe as a row has it, with every kind of twin that its images can have."""
    folder = world.zoo[0].parent.resolve()
    own = [override.replace("{zoo}", str(folder)) for override in making.overrides]
    # No measure needs image quality, whose weights would be asked for at every build, nor
    # positives.
    overrides = (*request.overrides, *own, "check.quality=[]", "positives.images=0")
    recipe = read_recipe(world.recipe, overrides)
    if recipe.finetune.method != "base":
        overrides = (*overrides, "controls.makers=['base', 'finetuned']")
    return read_recipe(world.recipe, overrides)


@dataclass(frozen=True)
class _Collector:
    """A world with one seed."""

    request: ValidityRequest
    world: World
    members: Members
    seed: int
    engine: Engine | None

    def answers(self, making: Making) -> tuple[Collected, bool]:
        """Those to a making, from its file if they are there; and whether they were not."""
        path = Key(self.world.name, making.name, self.seed).within(self.request.output)
        own = request_of(self.request, self.world, making, self.seed)
        identity = fingerprint(
            {
                "revision": REVISION,
                "stages": REVISIONS,
                "kind": making.kind,
                "recipe": json.loads(own.recipe.model_dump_json()),
                "classes": [c.model_dump(mode="json") for c in own.classes],
                "generators": making.generators,
                "seed": self.seed,
                "files": self._files,
                "classifiers": panel.fingerprint([*self.members.panel, *self.members.zoo]),
                "parts": self.members.parts,
            }
        )
        if (known := read(path, identity)) is not None:
            return known, False
        log.info("%s, seed %d: %s", self.world.name, self.seed, making.name)
        collected = self._ask(self._made(making, own))
        write(path, collected, identity)
        return collected, True

    def _made(self, making: Making, own: BuildRequest) -> Made:
        match making.kind:
            case "build":
                return self._source.judged(self._source.built(own))
            case "real":
                return self._source.real()
            case "references":
                return self._source.judged(self._source.references())
            case "doctored":
                made = self._source.doctored(own.output, own.recipe.sample.images)
                return self._source.judged(made)
            case "prior":
                return self._source.prior()

    @cached_property
    def _source(self) -> Source:
        return Source(request_of(self.request, self.world, CONTROLS, self.seed), self.engine)

    @cached_property
    def _files(self) -> dict[str, str]:
        """Of the recipe's own models and images, each file's hash."""
        recipe = _recipe(self.request, self.world, CONTROLS)
        named = (recipe.base.model, recipe.data.images, recipe.check.object_detector)
        return {
            f"{name}/{path.relative_to(folder)}": file_sha256(path)
            for name in named
            if name is not None
            for folder in [Path(recipe.locate(name))]
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def _ask(self, made: Made) -> Collected:
        records = [pictured.record for pictured in made.images]
        shown = [pictured.shown for pictured in made.images]
        diversity = {}
        for c in self.world.classes:
            own = [
                record
                for record, one in zip(records, shown, strict=True)
                if one.class_index == c.index and one.role == "image"
            ]
            if len(own) > 1:
                diversity[c.index] = metrics.mean_pairwise_distance(self._features(own))
        return Collected(
            classifiers=self.members.parts,
            images=shown,
            said=ask([*self.members.panel, *self.members.zoo], records),
            notes={"diversity": diversity, "seconds": made.seconds},
        )

    @torch.inference_mode()
    def _features(self, images: Sequence[ImageRecord]) -> NDArray[np.float32]:
        phi = self.members.phi
        prepare = transform(phi.preprocessing("whole"))
        pixels = [prepare(decode_rgb(image.read())) for image in images]
        parts = [
            phi.features(torch.stack(pixels[i : i + 64]).to(phi.device).float() / 255).cpu().numpy()
            for i in range(0, len(pixels), 64)
        ]
        return np.concatenate(parts)
