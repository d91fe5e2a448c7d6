"""What ``import spurbench`` offers; the commands of the same names do the same.

Nothing heavy is imported before a function is called that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spurbench.core.errors import SpurbenchError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from spurbench.build.request import Built
    from spurbench.classifiers.classifier import Classifier
    from spurbench.classifiers.info import Mode
    from spurbench.engines.choose import Name as EngineName
    from spurbench.evaluation.compare import Comparison
    from spurbench.evaluation.members import Member
    from spurbench.evaluation.results import Protocol, Result
    from spurbench.images.records import Config, ImageSet
    from spurbench.leaderboard.boards import Board

    Transform = Callable[[Image.Image], Tensor]

StrPath = str | PathLike[str]


def load_classifier(
    model: str | nn.Module,
    *,
    checkpoint: StrPath | None = None,
    transform: Transform | None = None,
    labels: Sequence[str | int] | None = None,
    name: str | None = None,
    device: str = "auto",
) -> Classifier:
    """Load a classifier to measure, or make one of a network.

    Args:
        model: a SPEC as ``spurbench eval --model`` takes it (a timm name, ``torchvision:ARCH``,
            ``mini:NAME``, a folder, ...; ``SPEC=CHECKPOINT`` for local weights), or any network
            from normalised pixels to logits.
        checkpoint: local weights of the architecture that a SPEC names.
        transform: of a network: from an RGB image to its input (3, height, width). None resizes to
            what a timm network says of itself, else to 224 pixels with ImageNet's normalisation.
        labels: for a head that is not ImageNet's: WordNet ids, names or indices of ImageNet-1k, an
            output each.
        name: of a network, in results; not that of published weights. None takes its class's name.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        SpurbenchError: if it can't be loaded, or an argument does not go with it.
    """
    from spurbench.core.environment import choose_device

    if isinstance(model, str):
        _refuse_for_spec(transform=transform, name=name)
        return _member(model, checkpoint, labels).load(choose_device(device))
    from spurbench.classifiers.module import from_module

    if checkpoint is not None:
        raise SpurbenchError(
            "checkpoint goes with a SPEC; load the weights into the network itself"
        )
    own = type(model).__name__ if name is None else name
    made = from_module(model, name=own, transform=transform, labels=labels)
    return made.to(choose_device(device))


def open_images(
    data: StrPath,
    split: Literal["real", "generated", "all"] = "all",
    *,
    config: Config = "default",
) -> ImageSet:
    """Open images to measure classifiers on.

    Args:
        data: a folder in the Spurious ImageNet layout, a dataset that ``spurbench build`` made, or
            a hub dataset id.
        split: which images.
        config: of a dataset: all its images, or those that fool its whole panel and show no object.

    Raises:
        SpurbenchError: if there is no such data, split, config or layout.
    """
    from spurbench.images import sources

    return sources.open_images(fspath(data), split, config=config, decode=False)


def open_positives(folder: StrPath) -> ImageSet:
    """Open images that truly show their classes, a folder for each, as ImageNet's validation set.

    Raises:
        SpurbenchError: if there are none.
    """
    from spurbench.images import sources

    return sources.open_positives(Path(folder), decode=False)


def evaluate(
    model: str | nn.Module,
    data: StrPath | ImageSet | None = None,
    *,
    positives: StrPath | ImageSet | None = None,
    transform: Transform | None = None,
    labels: Sequence[str | int] | None = None,
    name: str | None = None,
    preprocess: Mode = "whole",
    config: Config = "default",
    protocol: Protocol = "spurbench",
    device: str = "auto",
    output: StrPath | None = None,
) -> Result:
    """Measure how often images that show only a spurious feature are called its class.

    Args:
        model: a SPEC or a network, see :func:`load_classifier`; or what that returned, which then
            runs where it is.
        data: see :func:`open_images`; or what that returned. None: what is at hand, as ``spurbench
            eval`` finds it (``result.dataset`` says which).
        positives: see :func:`open_positives`; or what that returned. None takes the dataset's own,
            if it has some. With them comes recognition.
        transform: see :func:`load_classifier`.
        labels: see :func:`load_classifier`.
        name: see :func:`load_classifier`.
        preprocess: ``whole``: the short side to the input size, bicubic, then the centre crop, as
            the authors of Spurious ImageNet do; ``model``: the model's own evaluation transform.
        config: of a dataset that is opened here, see :func:`open_images`.
        protocol: ``neuhaus``: as the authors of Spurious ImageNet measure; every image counts, and
            positives are resized to 256/224 of the input and cropped.
        device: see :func:`load_classifier`.
        output: folder of results, as of ``spurbench eval``, where a stored result of the same
            measurement is found. None measures, and writes nothing.

    Returns:
        The result; ``to_frame()`` has its classes, ``answers`` every image.

    Raises:
        SpurbenchError: if a model or data can't be loaded or don't go together, or no data are
            named, and none or several are at hand.
    """
    from spurbench.core.environment import choose_device
    from spurbench.evaluation import evaluate as evaluation
    from spurbench.images.at_hand import one_at_hand
    from spurbench.images.records import ImageSet

    if data is None:
        data = one_at_hand().data
    request = evaluation.EvaluationRequest(
        images=_opened(data, config),
        positives=positives
        if positives is None or isinstance(positives, ImageSet)
        else open_positives(positives),
        preprocess=preprocess,
        protocol=protocol,
    )
    if isinstance(model, str) and output is not None:
        _refuse_for_spec(transform=transform, name=name)
        member = _member(model, None, labels)
        found = evaluation.stored(member, request, Path(output)) or evaluation.evaluate_member(
            member, request, Path(output), load=lambda asked: asked.load(choose_device(device))
        )
        return found.result
    from spurbench.classifiers.classifier import Classifier

    if isinstance(model, Classifier):
        _refuse_for_spec(transform=transform, labels=labels, name=name)
        classifier = model
    else:
        classifier = load_classifier(
            model, transform=transform, labels=labels, name=name, device=device
        )
    if output is None:
        return evaluation.measure(classifier, request)
    return evaluation.evaluate(classifier, request, Path(output)).result


def compare(a: Result | StrPath, b: Result | StrPath, *, images: int = 24) -> Comparison:
    """Compare two results, image by image; differences are B minus A.

    Args:
        a: a result, or its JSON with the parquet beside it.
        b: the other, of the same images.
        images: how many of the images on which they differ most to list.

    Raises:
        SpurbenchError: if they are of other images, or the answers of one are lost.
    """
    from spurbench.evaluation import compare as comparing
    from spurbench.evaluation.results import Result

    first, second = (r if isinstance(r, Result) else Result.read(Path(r)) for r in (a, b))
    return comparing.compare(first, second, images=images)


def leaderboard(
    results: Sequence[Result | StrPath],
    *,
    output: StrPath | None = None,
    data: Sequence[StrPath] = (),
    samples: int = 6,
) -> list[Board]:
    """Rank classifiers; a lower spurious accuracy is better.

    Args:
        results: results, or JSONs and folders of them.
        output: publish an entry for each, tables and a page here, as ``spurbench leaderboard
            build`` does. None writes nothing.
        data: the datasets that were measured, for sample images on the page.
        samples: of each class and split.

    Returns:
        The boards of ``results``, one for each dataset.

    Raises:
        SpurbenchError: if a result can't be read, two contradict each other, or there is none.
    """
    from spurbench.evaluation.results import Result
    from spurbench.leaderboard import boards, page

    given = [r if isinstance(r, Result) else Path(r) for r in results]
    if output is not None:
        page.build(given, [fspath(d) for d in data], Path(output), samples=samples)
    return boards.boards(boards.read(given))


def build(
    recipe: str = "mini",
    *,
    classes: str = "all",
    data: StrPath | None = None,
    overrides: Sequence[str] = (),
    output: StrPath | None = None,
    work: StrPath | None = None,
    version: str | None = None,
    previous: StrPath | None = None,
    note: str | None = None,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    positives: StrPath | None = None,
    replicates: int = 1,
    engine: EngineName = "local",
    workers: int | None = None,
    address: str | None = None,
    engine_options: StrPath | None = None,
    gpus_per_class: int = 1,
) -> Built:
    """Fine-tune per class, generate, check, and write a versioned dataset.

    Args:
        recipe: ``mini``, ``sd15``, or a folder with ``recipe.toml`` and ``classes.toml``.
        classes: ``all``, ``paper``, or class names and indices separated by commas.
        data: the Spurious ImageNet folder, for recipes without images of their own.
        overrides: ``section.key=value`` strings, as ``--set``.
        output: the dataset's folder; None: ``out/spurbench-RECIPE-VERSION``.
        work: the folder of finished stages; None: ``.stages/RECIPE`` beside the output.
        version: of the dataset; None: what the recipe says.
        previous: folder of the version before, whose changelog goes on.
        note: for the changelog, what is new.
        seed: of everything random.
        device: see :func:`load_classifier`.
        force: make every stage again.
        positives: folder of photographs of the classes, see :func:`open_positives`; None: the
            untouched base model makes them.
        replicates: independently fine-tuned generators of each class.
        engine: who does the work: ``local`` processes, ``ray`` tasks or ``slurm`` jobs.
        workers: at once; None: one a GPU or core of this machine, elsewhere all there is room for.
        address: of a running Ray cluster; None: one on this machine.
        engine_options: TOML file for Slurm.
        gpus_per_class: GPUs that fine-tune one class together.

    Returns:
        What was made, what took how long, and which classes failed.

    Raises:
        SpurbenchError: before any work, if something is missing or wrong.
    """
    from spurbench.build.build import build as run
    from spurbench.build.request import BuildRequest
    from spurbench.engines.choose import open_engine

    request = BuildRequest.of(
        recipe,
        classes=classes,
        data=Path(data) if data is not None else None,
        overrides=overrides,
        output=Path(output) if output is not None else None,
        work=Path(work) if work is not None else None,
        version=version,
        previous=Path(previous) if previous is not None else None,
        note=note,
        seed=seed,
        device=device,
        force=force,
        positives=Path(positives) if positives is not None else None,
        replicates=replicates,
        gpus_per_class=gpus_per_class,
        elsewhere=engine != "local",
    )
    return run(
        request,
        open_engine(
            engine,
            units=len(request.classes),
            device=str(request.device),
            workers=workers,
            gpus_each=gpus_per_class,
            address=address,
            options=Path(engine_options) if engine_options is not None else None,
        ),
    )


def _opened(data: StrPath | ImageSet, config: Config) -> ImageSet:
    from spurbench.images.records import ImageSet

    if not isinstance(data, ImageSet):
        return open_images(data, config=config)
    if config not in ("default", data.config):
        raise SpurbenchError(f"config {config} goes with data that is yet to be opened")
    return data


def _member(spec: str, checkpoint: StrPath | None, labels: Sequence[str | int] | None) -> Member:
    from spurbench.evaluation.members import Member

    asked = (
        Member.parse(spec)
        if checkpoint is None
        else Member(spec, spec, checkpoint=Path(checkpoint))
    )
    return replace(asked, labels=None if labels is None else tuple(labels))


def _refuse_for_spec(**arguments: Any) -> None:
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise SpurbenchError(
            f"{', '.join(given)} can be given for a network only; a SPEC and a loaded classifier "
            "have their own"
        )
