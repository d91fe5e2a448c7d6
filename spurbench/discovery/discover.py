"""`spurbench discover`: every class through the classifier, by an engine's workers or here."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.core import atomic
from spurbench.core.environment import choose_device, one_thread, package_versions
from spurbench.core.errors import SpurbenchError, described
from spurbench.core.imagenet import imagenet_names
from spurbench.core.text import label
from spurbench.discovery.documents import (
    DISCOVERY,
    Discovery,
    Settings,
    class_folder,
    listed_images,
    read_class,
)
from spurbench.discovery.work import DiscoveryWork
from spurbench.engines.choose import open_engine
from spurbench.evaluation.members import Member
from spurbench.images.sources import IMAGE_SUFFIXES, class_folders
from spurbench.recipe.classes import choose

if TYPE_CHECKING:
    from spurbench.engines.choose import Name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Discovered:
    """What came of a discovery.

    Attributes:
        output: its folder.
        done: folders of the classes, below it, that are there now.
        failed: why, by folder, of those that are not.
    """

    output: Path
    done: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DiscoveryRequest:
    """What to look for, and in what.

    Attributes:
        member: the classifier.
        images: folder in ImageNet's layout: a folder a class, named by WordNet id or index.
        classes: files of each class that is wanted, by index.
        output: the discovery's folder.
        settings: every number.
    """

    member: Member
    images: Path
    classes: dict[int, list[str]]
    output: Path
    settings: Settings

    @classmethod
    def of(
        cls, spec: str, images: Path, *, classes: str, output: Path, settings: Settings
    ) -> DiscoveryRequest:
        """A request in the words of people; what is wrong with it is said before torch is imported.

        Args:
            spec: ``SPEC`` or ``SPEC=CHECKPOINT``, see
                :func:`spurbench.classifiers.load.load_classifier`.
            images: see :class:`DiscoveryRequest`.
            classes: ``all``, or names and indices of ImageNet's classes, separated by commas.
            output: see :class:`DiscoveryRequest`.
            settings: see :class:`DiscoveryRequest`.

        Raises:
            SpurbenchError: if there is no such folder, class or classifier, or the output holds
                something else.
        """
        member = Member.parse(spec)
        folders: dict[int, list[Path]] = {}
        for folder, index in class_folders(images).items():
            folders.setdefault(index, []).append(folder)
        if not folders:
            raise SpurbenchError(
                f"{images} holds no class folders; --images takes a folder in ImageNet's layout, "
                "folders named by WordNet id (n01833805) or class index"
            )
        names = {index: imagenet_names()[index] for index in sorted(folders)}
        few = ", ".join(list(names.values())[:5])
        listed = f"{images} has {few}{', ...' if len(names) > 5 else ''}"
        chosen = list(names) if classes == "all" else choose(classes, names, listed)
        files = {
            index: sorted(
                label(f"{folder.name}/{file.name}")
                for folder in folders[index]
                for file in folder.iterdir()
                if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
            )
            for index in chosen
        }
        if not_there := [names[index] for index, found in files.items() if not found]:
            raise SpurbenchError(f"{images} holds no image of {', '.join(not_there[:5])}")
        request = cls(member, images, files, output, settings)
        request._check_output()
        return request

    def _check_output(self) -> None:
        """Refuse a folder of something else, and classes that were found in other images."""
        if not self.output.exists() or not any(self.output.iterdir()):
            return
        Discovery.read(self.output)
        for index, files in self.classes.items():
            folder = self.output / class_folder(index)
            try:
                found = read_class(folder)
            except FileNotFoundError:
                continue
            known = {image.path for image in listed_images(folder)}
            if known | {damaged.path for damaged in found.damaged} != set(files):
                raise SpurbenchError(
                    f"{folder} was found in other images than {self.images} holds; delete it, or "
                    "name another --output"
                )


def discover(
    request: DiscoveryRequest,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    engine: Name = "local",
    workers: int | None = None,
    address: str | None = None,
    options: Path | None = None,
) -> Discovered:
    """Find the components of every class; classes that are there already are kept.

    A class that fails does not stop the others.

    Args:
        request: what to look for.
        device: where the classifier runs.
        batch_size: images at a time; None chooses by the device.
        engine: see :func:`spurbench.engines.choose.open_engine`, as are those that follow.
        workers: None: one a GPU, or one a core.
        address: of a cluster.
        options: a file of the engine's own.

    Raises:
        SpurbenchError: if the classifier can't be had or does not end in a linear layer, the output
            is another discovery's, or no worker can be had.
    """
    from spurbench.discovery.lens import require_linear_end

    if engine == "local":
        device = str(choose_device(device))
    classifier = request.member.load("cpu")
    require_linear_end(classifier)
    _begin(
        request,
        Discovery(
            classifier=classifier.info,
            preprocessing=classifier.preprocessing(request.settings.preprocess),
            images=str(request.images.resolve()),
            settings=request.settings,
            versions=package_versions(),
        ),
    )
    work = DiscoveryWork(
        member=request.member,
        weights=classifier.info.weights_sha256,
        images=request.images.resolve(),
        output=request.output.resolve(),
        classes={index: len(files) for index, files in request.classes.items()},
        settings=request.settings,
        here=Path.cwd(),
        device=device,
        batch_size=batch_size,
    )
    crew = open_engine(
        engine,
        units=sum(not work.done(unit) for unit in work.units),
        device=device,
        workers=workers,
        address=address,
        options=options,
    )
    failed = dict(_here(work) if crew is None else crew.run(work))
    done = tuple(unit.name for unit in work.units if unit.name not in failed)
    return Discovered(request.output, done, failed)


def _begin(request: DiscoveryRequest, new: Discovery) -> None:
    """Write down how it is made, or check that it goes on as it began."""
    file = request.output / DISCOVERY
    if file.exists():
        old = Discovery.read(request.output)
        for what, a, b in (
            ("classifier", old.classifier.weights_sha256, new.classifier.weights_sha256),
            ("preprocessing", old.preprocessing, new.preprocessing),
            ("settings", old.settings, new.settings),
            ("folder of images", old.images, new.images),
        ):
            if a != b:
                raise SpurbenchError(
                    f"{request.output} holds a discovery with another {what}; name another --output"
                )
        return
    atomic.write_text(file, new.model_dump_json(by_alias=True, indent=2) + "\n")


def _here(work: DiscoveryWork) -> dict[str, str]:
    """Do the units in this process."""
    failed: dict[str, str] = {}
    waiting = [unit for unit in work.units if not work.done(unit)]
    if not waiting:
        return failed
    with one_thread():
        do = work.open()
        for unit in waiting:
            try:
                do(unit)
            except Exception as error:  # one class's failure must not stop the others
                log.debug("class %s failed", unit.name, exc_info=True)
                failed[unit.name] = described(error)
    return failed
