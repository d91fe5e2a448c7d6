"""Measuring classifiers, one or many: each result is written, or found where it is stored."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.classifiers.labels import UnknownClassError
from spurbench.core.environment import choose_device
from spurbench.core.errors import SpurbenchError, described
from spurbench.core.identity import file_sha256
from spurbench.core.scratch import scratch
from spurbench.evaluation import known
from spurbench.evaluation.known import Identity
from spurbench.evaluation.measure import measure
from spurbench.evaluation.members import Member
from spurbench.evaluation.request import EvaluationRequest
from spurbench.evaluation.results import Result

if TYPE_CHECKING:
    from spurbench.classifiers.classifier import Classifier
    from spurbench.evaluation.shares import Shares
    from spurbench.images.pixels import PixelStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """A result, where it lies, and whether it was there already."""

    result: Result
    path: Path
    stored: bool


@dataclass(frozen=True)
class Failed:
    """Which classifier could not be measured, and why.

    Attributes:
        asked: the classifier, as it was asked for.
        reason: in one line.
        lacks_class: whether that is because it has no output for one of the images' classes.
    """

    asked: str
    reason: str
    lacks_class: bool = False

    @classmethod
    def of(cls, member: Member, error: Exception) -> Failed:
        """What is said of an error that its measuring ended in."""
        return cls(member.asked, described(error), isinstance(error, UnknownClassError))


Spread = Callable[[Sequence[Member]], Iterator[Measured | Failed]]
"""Measures classifiers whose results are not known to be stored; yields what became of each."""


def evaluate(
    classifier: Classifier,
    request: EvaluationRequest,
    output: Path,
    *,
    store: PixelStore | None = None,
    shares: Shares | None = None,
    force: bool = False,
) -> Measured:
    """Measure a classifier, or find the stored result of the same measurement.

    Args:
        classifier: to measure.
        request: what it is asked.
        output: folder of results; ``NAME.json`` and ``NAME.parquet`` go there.
        store: see :func:`measure`.
        shares: see :func:`measure`.
        force: measure even if an unchanged result is stored.

    Raises:
        SpurbenchError: see :func:`measure`; or if ``output`` can't be written to.
    """
    identity = Identity.of(classifier)
    # A function of the user's own is known by its repr only, which says too little to go by.
    force = force or (classifier.info.source == "module" and classifier.own_transform is not None)
    if not force and (stored := find(identity, request, output)):
        return stored
    require_writable(output)
    result = measure(classifier, request, store=store, shares=shares)
    path = _path(identity, request, output)
    result.write(path)
    return Measured(result, path, stored=False)


def find(identity: Identity, request: EvaluationRequest, output: Path) -> Measured | None:
    """The stored result of a measurement, if both its files are whole."""
    path = _path(identity, request, output)
    predictions = path.with_suffix(".parquet")
    try:
        result = Result.read(path)
    except SpurbenchError as error:
        if path.exists():
            log.warning("%s; measuring again", error)
        return None
    if not predictions.is_file() or file_sha256(predictions) != result.predictions_sha256:
        log.warning("%s is missing or changed; measuring again", predictions)
        return None
    return Measured(result, path, stored=True)


def stored(member: Member, request: EvaluationRequest, output: Path) -> Measured | None:
    """The stored result of a classifier that is known without being loaded."""
    key = known.key(member)
    identity = known.recall(key, output) if key else None
    return find(identity, request, output) if identity else None


def evaluate_member(
    member: Member,
    request: EvaluationRequest,
    output: Path,
    *,
    load: Callable[[Member], Classifier],
    store: PixelStore | None = None,
    shares: Shares | None = None,
    force: bool = False,
) -> Measured:
    """As :func:`evaluate`, of a classifier that is yet to be loaded; :func:`stored` will know it.

    Args:
        member: the classifier.
        request: see :func:`evaluate`.
        output: see :func:`evaluate`.
        load: loads it to where it is to run.
        store: see :func:`measure`.
        shares: see :func:`measure`.
        force: see :func:`evaluate`.

    Raises:
        SpurbenchError: see :func:`evaluate`; or if it can't be loaded.
    """
    key = known.key(member)
    classifier = load(member)
    measured = evaluate(classifier, request, output, store=store, shares=shares, force=force)
    if key and key == known.key(member):  # unless a file changed while it was read
        known.remember(key, Identity.of(classifier), output)
    return measured


def evaluate_each(
    members: Sequence[Member],
    request: EvaluationRequest,
    output: Path,
    *,
    device: str = "auto",
    force: bool = False,
    spread: Spread | None = None,
) -> Iterator[Measured | Failed]:
    """Measure classifiers; whose result is stored, and who is known, is not loaded.

    One that fails does not stop the others.

    Args:
        members: the classifiers.
        request: see :func:`evaluate`.
        output: see :func:`evaluate`.
        device: where they run, see :func:`spurbench.core.environment.choose_device`.
        force: see :func:`evaluate`.
        spread: what measures those that are left; None: :func:`evaluate_here`.

    Yields:
        What became of each as soon as it is there.

    Raises:
        SpurbenchError: see ``spread``.
    """
    found = [None if force else _stored(member, request, output) for member in members]
    left = [member for member, there in zip(members, found, strict=True) if there is None]
    outcomes = (
        spread(left) if spread else evaluate_here(left, request, output, device=device, force=force)
    )
    for there in found:
        yield there or next(outcomes)


def evaluate_here(
    members: Sequence[Member],
    request: EvaluationRequest,
    output: Path,
    *,
    device: str = "auto",
    force: bool = False,
) -> Iterator[Measured | Failed]:
    """Measure classifiers one after another; each image is decoded once per input geometry.

    Only one classifier is in memory at a time.

    Args:
        members: the classifiers.
        request: see :func:`evaluate`.
        output: see :func:`evaluate`.
        device: see :func:`evaluate_each`.
        force: see :func:`evaluate`.

    Yields:
        What became of each as soon as it is there.

    Raises:
        SpurbenchError: if a device that is asked for is not there.
    """
    if not members:
        return
    place = choose_device(device)
    with scratch() as folder:
        from spurbench.images.pixels import PixelStore

        store = PixelStore(folder) if len(members) > 1 else None
        for member in members:
            try:
                yield evaluate_member(
                    member,
                    request,
                    output,
                    load=lambda member: member.load(place),
                    store=store,
                    force=force,
                )
            except Exception as error:  # one classifier's failure must not cost the others
                log.debug("%s failed", member.asked, exc_info=True)
                yield Failed.of(member, error)


def _stored(member: Member, request: EvaluationRequest, output: Path) -> Measured | None:
    try:
        return stored(member, request, output)
    except Exception:  # it is told when the classifier is to be measured
        log.debug("%s failed", member.asked, exc_info=True)
        return None


def require_writable(folder: Path) -> None:
    """Fail before the measuring, not after it.

    Raises:
        SpurbenchError: if results can't be written to ``folder``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SpurbenchError(
            f"results can't be written to {folder} ({error.strerror}); name another --output"
        ) from None


def _path(identity: Identity, request: EvaluationRequest, output: Path) -> Path:
    return output / f"{request.file_stem(identity)}.json"
