"""What an engine's workers do to measure classifiers, and what they say of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from spurbench.core import atomic
from spurbench.core.documents import Document, read_bytes
from spurbench.core.environment import choose_device
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import fingerprint
from spurbench.core.text import label
from spurbench.engines.work import Unit
from spurbench.evaluation.evaluate import Failed, Measured, evaluate_member, find
from spurbench.evaluation.known import Identity
from spurbench.evaluation.measure import answer_share
from spurbench.evaluation.members import Member
from spurbench.evaluation.request import EvaluationRequest, RequestSource
from spurbench.evaluation.shares import Shares

if TYPE_CHECKING:
    from spurbench.classifiers.classifier import Classifier

SHARES = ".shares"
"""In the folder of results: answers that are in no result yet."""


class Ended(Document):
    """What became of a unit: of a share nothing more than that it is done.

    Attributes:
        identity: of the classifier whose result is stored.
        stored: whether the result was there already.
        failed: why there is none.
    """

    identity: Identity | None = None
    stored: bool = False
    failed: Failed | None = None


@dataclass(frozen=True)
class EvaluationWork:
    """Measuring classifiers; see :class:`spurbench.engines.work.Work`.

    A unit is a classifier; or a share of the images that it is asked about, and in the end the
    classifier, whose worker finds the answers of all shares.

    Attributes:
        members: the classifiers.
        source: what they are asked.
        asked: its fingerprint; images that are others by now are refused.
        output: folder of results.
        run: folder of what became of the units. Each evaluation has its own, for what a SPEC
            stood for in an earlier one need not be what it stands for now.
        device: where they run, see :func:`spurbench.core.environment.choose_device`.
        shares: into how many the images of a classifier are divided.
        force: measure even if an unchanged result is stored.
        pixels: folder in which workers keep decoded images for their next classifier.
        here: folder that relative paths start from.
    """

    members: tuple[Member, ...]
    source: RequestSource
    asked: str
    output: Path
    run: Path
    here: Path
    device: str = "auto"
    shares: int = 1
    force: bool = False
    pixels: Path | None = None

    @property
    def units(self) -> Sequence[Unit]:
        """All classifiers, each after its shares."""
        units = []
        for member in self.members:
            *parts, whole = self.names(member)
            units += [Unit(part, weight=1 / self.shares) for part in parts]
            units.append(Unit(whole, tuple(parts), weight=0.1 if parts else 1.0))
        return units

    def names(self, member: Member) -> list[str]:
        """The units of a classifier: its shares in order, where there are several, and itself."""
        name = label(member.asked)
        numbers = range(self.shares if self.shares > 1 else 0)
        return [*(f"{name}, share {i + 1} of {self.shares}" for i in numbers), name]

    def done(self, unit: Unit) -> bool:
        """Whether its worker wrote down that it is."""
        return self._file(unit.name).is_file()

    def open(self) -> Callable[[Unit], None]:
        """Open the images; see :meth:`spurbench.engines.work.Work.open`."""
        return _Worker(self)

    def end(self, name: str, how: Ended) -> None:
        """Write down what became of a unit."""
        atomic.write_text(self._file(name, how.failed is not None), how.model_dump_json())

    def ended(self, name: str) -> Ended | None:
        """What became of a unit; None if nobody wrote it down."""
        for failed in (False, True):
            with suppress(FileNotFoundError, ValidationError):
                return Ended.model_validate_json(read_bytes(self._file(name, failed)))
        return None

    def outcome(
        self,
        member: Member,
        request: EvaluationRequest,
        output: Path,
        reasons: Mapping[str, str],
    ) -> Measured | Failed:
        """What became of a classifier.

        Args:
            member: the classifier.
            request: what it was asked.
            output: the folder of results, as it is called here.
            reasons: by name, why the engine left units undone.
        """
        names = self.names(member)
        ended = [self.ended(name) for name in names]
        for name, how in zip(names, ended, strict=True):
            if how is not None and how.failed:
                return how.failed
            if name in reasons:
                return Failed(member.asked, reasons[name])
        whole = ended[-1]
        found = find(whole.identity, request, output) if whole and whole.identity else None
        if whole is None or found is None:
            return Failed(member.asked, f"its result is no longer in {output}; measure again")
        return replace(found, stored=whole.stored)

    def _file(self, name: str, failed: bool = False) -> Path:
        return self.run / f"{fingerprint(name)[:32]}{'.failed' if failed else ''}.json"


class _Worker:
    """Does units, in a process of its own."""

    def __init__(self, work: EvaluationWork) -> None:
        import torch

        from spurbench.images.pixels import PixelStore

        os.chdir(work.here)
        self._work, self._device = work, choose_device(work.device)
        source = work.source
        if self._device.type == "cpu":
            torch.set_num_threads(1)
            source = replace(source, decoders=1 if source.decoders is None else source.decoders)
        self._request = source.open()
        if self._request.fingerprint != work.asked:
            raise SpurbenchError(
                f"the images of {source.data} are no longer those that it began with; give the "
                "same command again"
            )
        self._store = PixelStore(Path(tempfile.mkdtemp(dir=work.pixels))) if work.pixels else None
        self._units: dict[str, tuple[Member, Callable[[Member], Ended]]] = {}
        for member in work.members:
            *parts, whole = work.names(member)
            self._units[whole] = member, self._measure
            for number, part in enumerate(parts):
                self._units[part] = member, partial(self._answer, number=number)
        self._loaded: tuple[Member, Classifier] | None = None

    def __call__(self, unit: Unit) -> None:
        member, do = self._units[unit.name]
        try:
            ended = do(member)
        except Exception as error:
            self._work.end(unit.name, Ended(failed=Failed.of(member, error)))
            raise
        self._work.end(unit.name, ended)

    def _answer(self, member: Member, number: int) -> Ended:
        """Answer one share of the images, unless there is a result that holds them."""
        classifier, work = self._load(member), self._work
        if work.force or not find(Identity.of(classifier), self._request, work.output):
            answer_share(classifier, self._request, self._shares(), number)
        return Ended()

    def _measure(self, member: Member) -> Ended:
        shares = self._shares() if self._work.shares > 1 else None
        measured = evaluate_member(
            member,
            self._request,
            self._work.output,
            load=self._load,
            store=self._store,
            shares=shares,
            force=self._work.force,
        )
        if shares:
            shares.remove()
        return Ended(identity=Identity.of(self._load(member)), stored=measured.stored)

    def _shares(self) -> Shares:
        work = self._work
        # What is measured again takes nothing from earlier evaluations.
        folder = work.run / "shares" if work.force else work.output / SHARES
        return Shares(folder, work.shares)

    def _load(self, member: Member) -> Classifier:
        """Load a classifier, of which one at a time is in memory."""
        if self._loaded is None or self._loaded[0] != member:
            self._loaded = None
            self._loaded = member, member.load(self._device)
        return self._loaded[1]
