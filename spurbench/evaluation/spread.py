"""Measuring classifiers by an engine's workers, with the results of one process."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.core import claims
from spurbench.core.environment import choose_device, one_thread
from spurbench.core.scratch import scratch
from spurbench.evaluation.evaluate import Failed, Measured, evaluate_here, require_writable
from spurbench.evaluation.members import Member
from spurbench.evaluation.request import EvaluationRequest, RequestSource
from spurbench.evaluation.work import EvaluationWork

if TYPE_CHECKING:
    from spurbench.engines.choose import Name

RUNS = ".runs"
"""In the folder of results: what became of the units of evaluations that go on."""

WORTH = {"cpu": 128, "cuda": 8192}
"""Images, counted once a classifier, for which it is worth starting another worker: starting one
takes about as long as a ResNet-50 takes to look at so many."""

BATCH = 32
"""Images that a share has at least, where nothing else is said."""


@dataclass(frozen=True)
class Spread:
    """Measures classifiers: by an engine's workers, or here where one is enough.

    Attributes:
        source: what they are asked.
        request: the same, opened.
        output: folder of results.
        device: where they run, see :func:`spurbench.core.environment.choose_device`.
        force: measure even if an unchanged result is stored.
        engine: see :func:`spurbench.engines.choose.open_engine`, as are those that follow.
        workers: None: as there, but no more than there is work for.
        address: of a cluster.
        options: a file of the engine's own.

    Raises:
        SpurbenchError: if a device that is asked for is not there.
    """

    source: RequestSource
    request: EvaluationRequest
    output: Path
    device: str = "auto"
    force: bool = False
    engine: Name = "local"
    workers: int | None = None
    address: str | None = None
    options: Path | None = None

    def __post_init__(self) -> None:
        if self.engine == "local" and self.device != "auto":  # which is never missing
            choose_device(self.device)

    def __call__(self, members: Sequence[Member]) -> Iterator[Measured | Failed]:
        """Measure classifiers; see :func:`spurbench.evaluation.evaluate.evaluate_each`."""
        if not members:
            return
        from spurbench.engines.choose import open_engine

        device, workers = self.device, self.workers
        if device == "auto":
            device = str(choose_device(device))
        if self.engine == "local" and workers is None:
            workers = self._worthwhile(len(members), device)
        shares = self._shares(len(members), workers or 1)
        engine = open_engine(
            self.engine,
            units=len(members) * shares,
            device=device,
            workers=workers,
            address=self.address,
            options=self.options,
        )
        if engine is None:
            with one_thread():
                yield from evaluate_here(
                    members, self.request, self.output, device=device, force=self.force
                )
            return
        require_writable(self.output)
        # Workers elsewhere don't reach this folder; one that does one classifier needs none.
        keep = self.engine == "local" and workers is not None and len(members) > workers
        with _run(self.output) as run, scratch() as pixels:
            work = EvaluationWork(
                members=tuple(members),
                source=self.source,
                asked=self.request.fingerprint,
                output=self.output.absolute(),
                run=run.absolute(),
                here=Path.cwd(),
                device=device,
                shares=shares,
                force=self.force,
                pixels=pixels if keep else None,
            )
            reasons = engine.run(work)
            for member in members:
                yield work.outcome(member, self.request, self.output, reasons)

    def _worthwhile(self, members: int, device: str) -> int:
        """The workers that there is room for, but no more than there is work for."""
        kind, _, number = device.partition(":")
        if kind == "cuda":
            import torch

            room = 1 if number else torch.cuda.device_count()
        else:
            from spurbench.engines.choose import cores

            room = cores() if kind == "cpu" else 1
        return max(1, min(room, members * self.request.size // WORTH.get(kind, 1)))

    def _shares(self, members: int, workers: int) -> int:
        """Into how many the images of each classifier are divided: all workers have one at most."""
        batches = self.request.size // (self.source.batch_size or BATCH)
        return max(1, min(workers // members, batches))


@contextmanager
def _run(output: Path) -> Iterator[Path]:
    """An empty folder beside the results, removed after the block; killed ones' are removed too."""
    root = output / RUNS

    def make() -> Path:
        folder = root / secrets.token_hex(6)
        folder.mkdir(parents=True)
        return folder

    if root.is_dir():
        claims.remove_abandoned(root.iterdir())
    with claims.claimed(make) as folder:
        try:
            yield folder
        finally:
            claims.remove(folder)
            with suppress(OSError):  # another evaluation goes on
                root.rmdir()
