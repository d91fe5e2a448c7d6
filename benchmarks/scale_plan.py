"""1,000 classes x 1,000 images and 1,000 classifiers on them: planned, by simulation.

    python -m benchmarks.scale_plan
    python -m benchmarks.scale_plan --measure

Prints the tables of docs/scale.md. Nothing runs on a GPU: seconds are counted operations of the
recipe `sd15` by an assumed rate, or, of what a processor does, the constants below, which
`--measure` measures.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from spurbench.build.forecast import IMPORTS, Rate
from spurbench.build.plan import TERA, plan
from spurbench.engines.ledger import Ledger
from spurbench.engines.schedule import Cluster, Schedule, simulate
from spurbench.engines.work import Unit
from spurbench.recipe.load import read_recipe

CLASSES, IMAGES, CLASSIFIERS = 1000, 1000, 1000
NOUNS = 530
"""Priors of 1,000 classes, if two share one: more than of sd15's 100, which have 34."""

DECODE, HASH, PARQUET, READY = 9.4e-3, 0.57e-9, 1.0e-9, 1.2e-5
"""Seconds of a core to decode an image of 512 pixels and shrink it to 224, to hash a byte, to write
a byte of an image to parquet, and to keep account of one unit of many."""

FORWARD = {"ResNet-50": 8.2e9, "ConvNeXt-B": 30.8e9, "ViT-B/16": 35.2e9, "ViT-L/16": 123.2e9}
"""Operations of a classifier at 224 pixels, twice the published multiply-adds."""

PIXELS = 224 * 224 * 3
CORES = 16
"""That decode for one GPU."""
DISK = 2e9
"""Bytes a second at which a worker reads decoded images back from its own disk."""

Rows = Sequence[Sequence[str]]


class World:
    """1,000 classes of sd15.

    Attributes:
        rate: operations a second that a GPU is taken to do.
        stages: seconds of each by its name in the plan.
        images: that a class has in the end: generated, twins, positives.
        image_bytes: of one of them.
        weights: bytes of a class's.
        checkpoint: bytes of the one that a class writes.
        base: bytes of the base's weights.
    """

    def __init__(self, rate: float) -> None:
        recipe = read_recipe("sd15", ["base.model=architecture", f"sample.images={IMAGES}"])
        planned = plan(recipe, recipe.classes)
        runs = {stage.name: stage for stage in planned.stages}
        costs = planned.costs
        self.rate = rate
        self.stages = {name: s.operations / s.runs / rate for name, s in runs.items()}
        self.images = 2 * IMAGES + recipe.positives.images
        self.image_bytes = runs["sample"].disk / runs["sample"].runs / IMAGES
        self.weights = runs["fine-tune"].disk / runs["fine-tune"].runs
        self.checkpoint = planned.checkpoint
        self.base = 4.0 * (
            costs.unet.parameters + costs.text_encoder.parameters + costs.vae_parameters
        )

    def units(self, fine_tuning: float = 1.0) -> list[Unit]:
        """As a build hands them out; of a fine-tuning's seconds there is a share left."""
        rest = sum(s for name, s in self.stages.items() if name not in ("prior", "fine-tune"))
        of_class = rest + fine_tuning * self.stages["fine-tune"]
        priors = [Unit(f"prior/{i}", weight=self.stages["prior"]) for i in range(NOUNS)]
        return priors + [
            Unit(str(i), (f"prior/{i % NOUNS}",), weight=of_class) for i in range(CLASSES)
        ]

    def finer(self, images: int) -> list[Unit]:
        """As it could: fine-tuning, positives, and so many images and twins are units."""
        seconds, units, shares = self.stages, self.units()[:NOUNS], IMAGES // images
        for i in range(CLASSES):
            tuned = f"{i}/fine-tune"
            units.append(Unit(tuned, (f"prior/{i % NOUNS}",), seconds["fine-tune"]))
            units.append(Unit(f"{i}/positives", (), seconds["positives"]))
            for k in range(shares):
                units.append(Unit(f"{i}/sample {k}", (tuned,), seconds["sample"] / shares))
                units.append(Unit(f"{i}/controls {k}", (), seconds["controls"] / shares))
        return units

    def build(
        self,
        gpus: int,
        bandwidth: float | None = None,
        *,
        checkpoints: bool = True,
        between_failures: float | None = None,
    ) -> Schedule:
        """On so many GPUs, with a store of so many bytes a second.

        Of a class whose worker dies, quarters are kept: stages and the checkpoint.
        """
        images = self.images * self.image_bytes
        # Weights and images are written, and read: to sample, and to be looked at.
        moved = 2 * self.weights + 2 * images + checkpoints * self.checkpoint
        cluster = Cluster(
            gpus,
            loading=IMPORTS,
            loaded=self.base,
            bandwidth=bandwidth,
            between_failures=between_failures,
            checkpoint=0.25,
        )
        return simulate(self.units(), cluster, moved={str(i): moved for i in range(CLASSES)})


def duration(seconds: float) -> str:
    """In the largest unit of which there are two."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def held(schedule: Schedule, gpus: int | None = None) -> str:
    """GPU hours from start to end."""
    return f"{(gpus or schedule.cluster.workers) * schedule.makespan / 3600:,.0f}"


def builds(world: World) -> Rows:
    """By GPUs; the store as fast as anyone wants, and 10 GB/s."""
    rows = [("GPUs", "wall time", "GPU hours held", "busy", "store of 10 GB/s", "waiting for it")]
    for gpus in (8, 64, 512, 1000, 2000):
        free, shared = world.build(gpus), world.build(gpus, 10e9)
        rows.append(
            (
                f"{gpus:,}",
                duration(free.makespan),
                held(free),
                f"{free.utilisation:.0%}",
                duration(shared.makespan),
                f"{shared.moving / shared.busy:.0%}",
            )
        )
    return rows


def stores(world: World) -> Rows:
    """By the store's bandwidth, with and without a checkpoint in mid-class."""
    rows = [("store, GB/s", "64 GPUs", "512 GPUs", "1,000 GPUs", "1,000 GPUs, no checkpoints")]
    for speed in (1, 3, 10, 30, 100):
        walls = [world.build(gpus, 1e9 * speed).makespan for gpus in (64, 512, 1000)]
        walls.append(world.build(1000, 1e9 * speed, checkpoints=False).makespan)
        rows.append((str(speed), *map(duration, walls)))
    return rows


def beyond(world: World) -> Rows:
    """More GPUs than classes."""
    cases = (
        ("1,000 GPUs, one a class", 1000, 1, world.units()),
        ("2,000, `--gpus-per-class 2`", 1000, 2, world.units(0.5)),
        ("1,000, smaller units", 1000, 1, world.finer(250)),
        ("2,000, smaller units", 2000, 1, world.finer(250)),
        ("4,000, smaller units", 4000, 1, world.finer(250)),
    )
    rows = [("", "units", "wall time", "GPU hours held", "longest chain of needs")]
    for name, workers, each, units in cases:
        schedule = simulate(units, Cluster(workers, loading=IMPORTS))
        rows.append(
            (
                name,
                f"{len(units):,}",
                duration(schedule.makespan),
                held(schedule, each * workers),
                duration(schedule.critical_seconds),
            )
        )
    return rows


def failures(world: World) -> Rows:
    """By how often a worker dies; quarters of its class outlive it."""
    rows = [("a worker dies every", "wall time", "units lost", "GPU hours lost", "given up")]
    for name, seconds in (("30 days", 2.6e6), ("day", 86400), ("2 hours", 7200), ("15 min", 900)):
        schedule = world.build(512, between_failures=seconds)
        lost = [run for run in schedule.runs if run.lost]
        rows.append(
            (
                name,
                duration(schedule.makespan),
                f"{len(lost):,}",
                f"{sum(run.end - run.start for run in lost) / 3600:.1f}",
                f"{len(schedule.given_up):,}",
            )
        )
    return rows


def alone(world: World) -> Rows:
    """What one process or one file server does, whatever the number of GPUs."""
    size = CLASSES * world.images * world.image_bytes
    cases = [
        ("build, at its end: hash stored images", f"{size / 1e12:.1f} TB", size * HASH),
        ("build, at its end: hash images, and shards", f"{size / 1e12:.1f} TB", 2 * size * HASH),
        ("build, at its end: write parquet", f"{size / 1e12:.1f} TB", size * PARQUET),
    ]
    for name, units in (
        ("build", NOUNS + CLASSES),
        ("eval", CLASSIFIERS),
        ("eval in 10 shares", 11 * CLASSIFIERS),
        ("eval in 100 shares", 101 * CLASSIFIERS),
    ):
        cases.append((f"{name}, engine: what is ready?", f"{units:,} units", units * READY))
    return [
        ("work of one", "how much", "time"),
        *((name, much, duration(seconds)) for name, much, seconds in cases),
    ]


def evaluations(world: World) -> Rows:
    """1,000 classifiers, by GPUs; decoded images kept by each worker, and decoded for each."""
    images = CLASSES * world.images
    decoding, reading = images * DECODE / CORES, images * PIXELS / DISK
    operations = [*FORWARD.values()] * (CLASSIFIERS // len(FORWARD))
    forward = [images * each / world.rate for each in operations]
    units = [Unit(str(i)) for i in range(CLASSIFIERS)]
    rows = [
        ("GPUs", "decoded once a worker", "GPU hours held", "decoded for each", "forward alone")
    ]
    for gpus in (8, 64, 512, 1000):
        kept, anew, bare = (
            # The first classifiers are the first of their workers.
            simulate(
                units,
                Cluster(gpus, loading=IMPORTS),
                seconds={
                    str(i): max(took, first if i < gpus else later)
                    for i, took in enumerate(forward)
                },
            )
            for first, later in ((decoding, reading), (decoding, decoding), (0.0, 0.0))
        )
        walls = [duration(schedule.makespan) for schedule in (kept, anew, bare)]
        rows.append((f"{gpus:,}", walls[0], held(kept), *walls[1:]))
    return rows


TABLES: dict[str, Callable[[World], Rows]] = {
    "Builds": builds,
    "The store": stores,
    "More GPUs than classes": beyond,
    "Workers that die, 512 GPUs": failures,
    "What does not grow with GPUs": alone,
    "Evaluations": evaluations,
}


def markdown(rows: Rows) -> Iterator[str]:
    """Lines of a table, its first row the header."""
    header, *body = rows
    yield f"| {' | '.join(header)} |"
    yield "| --- |" + " ---: |" * (len(header) - 1)
    for row in body:
        yield f"| {' | '.join(row)} |"


def measure(units: int = 100_000) -> Iterator[str]:
    """The constants, on this machine's processor; the ledger's with a work of so many units."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).resize((512, 512))
    noisy = np.asarray(smooth).astype(int) + rng.integers(-3, 4, (512, 512, 3))
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    data = buffer.getvalue()
    table = pa.table({"image": [rng.bytes(len(data)) for _ in range(50)]})
    work = _AtOnce([Unit(str(i)) for i in range(units)])

    def seconds(do: Callable[[], object], repeats: int = 10) -> float:
        do()
        start = time.process_time()
        for _ in range(repeats):
            do()
        return (time.process_time() - start) / repeats

    decode = seconds(lambda: Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224)))
    yield f"decode and shrink one of {len(data) / 1e6:.2f} MB: {1e3 * decode:.1f} ms"
    yield f"sha256: {1e9 * seconds(lambda: hashlib.sha256(data)) / len(data):.2f} ns a byte"
    with tempfile.TemporaryDirectory() as folder:
        wrote = seconds(lambda: pq.write_table(table, f"{folder}/images.parquet"))
    yield f"parquet: {1e9 * wrote / table.nbytes:.2f} ns a byte"
    yield f"a ledger's unit: {1e6 * seconds(work.run, 1) / len(work.units):.1f} µs"


class _AtOnce:
    """A work whose units are done as soon as they are begun."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self.units = units
        self._done: set[str] = set()

    def run(self) -> None:
        self._done.clear()
        ledger = Ledger(self)
        while ready := ledger.ready(1):
            ledger.begin(ready[0])
            self._done.add(ready[0].name)
            ledger.succeed(ready[0])

    def done(self, unit: Unit) -> bool:
        return unit.name in self._done

    def open(self) -> Callable[[Unit], None]:
        raise NotImplementedError


@click.command(help=__doc__)
@click.option("--device-tflops", default=989.0, show_default=True, help="A GPU's peak.")
@click.option("--device-share", default=0.25, show_default=True, help="That it is taken to reach.")
@click.option("--measure", "measuring", is_flag=True, help="The constants, on this processor.")
def main(device_tflops: float, device_share: float, measuring: bool) -> None:
    """Print."""
    if measuring:
        print(*measure(), sep="\n")
        return
    rate = Rate(TERA * device_tflops, device_share)
    world = World(rate.peak * rate.share)
    for title, table in TABLES.items():
        print(f"\n{title}\n", *markdown(table(world)), sep="\n")


if __name__ == "__main__":
    main()
