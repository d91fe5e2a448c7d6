"""`spurbench build --dry-run --gpus 64`: how long a build would take an engine's workers.

What a stage takes is read from the stage store, where it holds such stages; else it follows from
the counted operations and a rate that is assumed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from statistics import fmean, median
from typing import Any

from spurbench.build.plan import TERA, Plan
from spurbench.build.request import BuildRequest
from spurbench.build.store import MARKER, Marker
from spurbench.core.documents import read_json, validated
from spurbench.core.errors import SpurbenchError, reason
from spurbench.engines.schedule import Cluster, Schedule, simulate
from spurbench.engines.work import Unit
from spurbench.recipe.schema import Recipe

log = logging.getLogger(__name__)

IMPORTS = 10.0
"""Seconds that a worker takes to start and import."""

LEAST = 0.001
"""Of a device's TFLOP/s, and of their share: below lies a slip of the keyboard."""

READING = 1e9
"""Bytes a second at which it reads the base's weights."""


@dataclass(frozen=True)
class Rate:
    """How fast a device is taken to be.

    Attributes:
        peak: operations a second, as its maker gives them.
        share: of the peak that a stage is taken to reach.

    Raises:
        SpurbenchError: if they are not numbers that can be.
    """

    peak: float
    share: float

    def __post_init__(self) -> None:
        if not LEAST * TERA <= self.peak < inf:
            raise SpurbenchError(
                f"--device-tflops {self.peak / TERA:g} is no GPU's; give one of {LEAST} or more"
            )
        if not LEAST <= self.share <= 1:
            raise SpurbenchError(f"--device-share {self.share:g} is not in {LEAST}..1")


@dataclass(frozen=True)
class Timing:
    """What a stage takes.

    Attributes:
        stage: as the plan calls it.
        runs: how often it runs.
        seconds: of all runs.
        stored: from how many stored stages that is known; 0: it is counted.
    """

    stage: str
    runs: int
    seconds: float
    stored: int


@dataclass(frozen=True)
class Forecast:
    """What a build would take.

    Attributes:
        timings: by stage.
        schedule: of as many workers as were asked for.
        others: of other numbers, the fewest first.
        store: bytes in the stage store, with the checkpoints that are there at one time.
        dataset: bytes of the generated images in the dataset.
        assumptions: sentences on what all this rests on.
    """

    timings: tuple[Timing, ...]
    schedule: Schedule
    others: tuple[Schedule, ...]
    store: float
    dataset: float
    assumptions: tuple[str, ...]


def forecast(
    planned: Plan,
    request: BuildRequest,
    units: Sequence[Unit],
    *,
    workers: int,
    rate: Rate,
) -> Forecast:
    """Foresee a build as if nothing of it were stored yet.

    Args:
        planned: its stages and their operations.
        request: what to build.
        units: its own, as it hands them out.
        workers: how many, with as many GPUs each as the request gives a class.
        rate: of one GPU, for what the store knows nothing of.
    """
    classes = request.classes
    known = _Stored.read(request.work, request.recipe)
    together = _together(request)
    examined = {stage.name: stage.runs for stage in planned.stages}
    seconds = dict.fromkeys((unit.name for unit in units), 0.0)
    timings = []
    for stage in planned.stages:
        subjects = sorted({c.prior_subject if stage.name == "prior" else c.slug for c in classes})
        # What a run is stored as, and how often; a class's check is one for each kind of images.
        stored_as = {stage.name.replace("-", ""): 1.0}
        if stage.name == "check":
            generators = examined["sample"] / len(classes)
            more = sum(examined.get(n, 0) for n in ("controls", "contexts", "positives"))
            stored_as = {
                "examine": 1 + generators + more / len(classes),
                "quality": 1 + generators,
            }
        number = sum(known.number(kind) for kind in stored_as)
        each = stage.operations / stage.runs / (rate.peak * rate.share)
        shortened = together if stage.name == "fine-tune" else 1.0
        spent = 0.0
        for subject in subjects:
            if number:
                each = sum(known.seconds(kind, subject) * n for kind, n in stored_as.items())
            took = each * shortened * stage.runs / len(subjects)
            seconds[subject] += took
            spent += took
        timings.append(Timing(stage.name, stage.runs, spent, number))
    base = 4 * (
        planned.costs.unet.parameters
        + planned.costs.text_encoder.parameters
        + planned.costs.vae_parameters
    )
    loading = IMPORTS + base / READING

    def scheduled(workers: int) -> Schedule:
        return simulate(units, Cluster(workers, loading=loading), seconds=seconds)

    rounds = -(-len(classes) // workers)
    others = {max(1, workers // 2), -(-len(classes) // rounds), 2 * workers, len(classes)}
    images = ("sample", "controls", "contexts", "positives")
    return Forecast(
        timings=tuple(timings),
        schedule=scheduled(workers),
        others=tuple(scheduled(n) for n in sorted(others - {workers})),
        store=sum(stage.disk for stage in planned.stages)
        + min(workers, len(classes)) * planned.checkpoint,
        dataset=sum(stage.disk for stage in planned.stages if stage.name in images),
        assumptions=(
            *_of_seconds(timings, known.devices, request.work, rate),
            *_of_sharing(request, together),
            f"Loading, once a worker: {loading:.0f} s, taken to be {IMPORTS:g} s of imports and "
            f"{base / 1e9:.2g} GB of the base's weights at {READING / 1e9:g} GB/s.",
            "As if nothing were stored yet, nobody failed, and nobody waited for the store. "
            "Writing the dataset, the work of one process, comes after it.",
        ),
    )


def _together(request: BuildRequest) -> float:
    """Share of a fine-tuning's time that is left when GPUs share out each step's samples."""
    samples = 2 * request.recipe.finetune.batch_size
    return -(-samples // request.gpus_per_class) / samples


def _of_sharing(request: BuildRequest, together: float) -> Iterator[str]:
    if request.gpus_per_class > 1:
        yield (
            f"{request.gpus_per_class} GPUs a class are taken to fine-tune it in {together:.2g} of "
            f"the time: they share out a step's {2 * request.recipe.finetune.batch_size} samples, "
            "and nothing else."
        )


def _of_seconds(
    timings: Sequence[Timing], devices: Sequence[str], store: Path, rate: Rate
) -> Iterator[str]:
    """Where the stages' seconds are from."""
    counted = [t.stage for t in timings if not t.stored and t.seconds]
    stored = [t.stage for t in timings if t.stored]
    nothing = [t.stage for t in timings if not t.stored and not t.seconds]
    if counted:
        yield (
            f"Counted, not measured: {', '.join(counted)}, at an assumed {100 * rate.share:g} % of "
            f"{rate.peak / TERA:g} TFLOP/s a GPU."
        )
    if stored:
        yield (
            f"Stored in {store}: {', '.join(stored)}, as long as they took on "
            f"{' and '.join(devices)}; a class or prior that is not there takes the others' median."
        )
    if nothing:
        yield f"Taken to need nothing, for it is not counted: {', '.join(nothing)}."


@dataclass(frozen=True)
class _Stored:
    """What a store knows.

    Attributes:
        of: seconds by kind of stage, then subject, a value a stage.
        devices: on which they were made.
    """

    of: Mapping[str, Mapping[str, Sequence[float]]]
    devices: Sequence[str]

    @classmethod
    def read(cls, store: Path, recipe: Recipe) -> _Stored:
        """Those that cost what this recipe's cost, of the newest revision of each kind."""
        found: dict[str, dict[int, dict[str, list[float]]]] = {}
        devices = set()
        for path in sorted([*store.glob("*/*/" + MARKER), *store.glob("prior/*/*/" + MARKER)]):
            try:
                marker = validated(Marker, read_json(path), MARKER)
                if not _alike(marker, recipe):
                    continue
                of_kind = found.setdefault(marker.stage, {})
                of_revision = of_kind.setdefault(int(marker.inputs["revision"]), {})
            except (SpurbenchError, OSError, KeyError, TypeError, ValueError) as error:
                log.warning("%s does not say what its stage took: %s", path, reason(error))
                continue
            subject = path.parent.parent.relative_to(store).as_posix()
            of_revision.setdefault(subject, []).append(marker.seconds)
            devices.add(marker.device or "an unknown device")
        newest = {kind: revisions[max(revisions)] for kind, revisions in found.items()}
        return cls(newest, sorted(devices))

    def number(self, kind: str) -> int:
        """How many stages of a kind are known."""
        return sum(map(len, self.of.get(kind, {}).values()))

    def seconds(self, kind: str, subject: str) -> float:
        """The mean of a subject's own stages, else the median of all; 0 if there are none."""
        of_kind = self.of.get(kind, {})
        if subject in of_kind:
            return fmean(of_kind[subject])
        return median(s for seconds in of_kind.values() for s in seconds) if of_kind else 0.0


def _alike(marker: Marker, recipe: Recipe) -> bool:
    """Whether a stage does as much as the recipe's own of its kind."""
    inputs, tuning = marker.inputs, recipe.finetune
    drawn = recipe.sample.model_dump(mode="json")
    own: dict[str, Any] = {}
    match marker.stage:
        case "prior":
            own = recipe.prior.model_dump(mode="json")
        case "sample":
            own = drawn
        case "contexts":
            own = drawn | {"images": recipe.contexts.images}
        case "controls":
            own = {key: value for key, value in drawn.items() if key != "phi_guidance"}
        case "positives":
            if len(marker.files) != recipe.positives.images:
                return False
            undrawn = ("images", "phi_guidance")
            own = {key: value for key, value in drawn.items() if key not in undrawn}
        case "finetune":
            own = {"finetune": tuning.model_dump(mode="json", exclude={"checkpoint_every"})}
            spurious_class = recipe.classes.by_index()[inputs["class"]]
            if recipe.kappa_of(spurious_class):
                sfsl = recipe.sfsl.model_dump(mode="json", exclude={"kappa", "default_kappa"})
            else:
                sfsl = None
            own |= {"sfsl": sfsl}
        case _:
            return True
    own["resolution"] = recipe.base.resolution
    return all(inputs[key] == value for key, value in own.items())
