"""A discovery as units of work: a class each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from spurbench.core.environment import choose_device
from spurbench.core.errors import SpurbenchError
from spurbench.discovery.documents import CLASS, Settings, class_folder
from spurbench.engines.work import Unit
from spurbench.evaluation.members import Member


@dataclass(frozen=True)
class DiscoveryWork:
    """The units of a discovery; see :class:`spurbench.engines.work.Work`.

    Attributes:
        member: the classifier.
        weights: sha256 of its weights; a worker that loads others refuses.
        images: folder in ImageNet's layout, absolute.
        output: the discovery's folder, absolute.
        classes: how many files each class has, by index.
        settings: every number.
        here: folder that relative paths start from.
        device: where the classifier runs, see :func:`spurbench.core.environment.choose_device`.
        batch_size: images at a time; None chooses by the device.
    """

    member: Member
    weights: str
    images: Path
    output: Path
    classes: dict[int, int]
    settings: Settings
    here: Path
    device: str = "auto"
    batch_size: int | None = None

    @property
    def units(self) -> Sequence[Unit]:
        """A unit a class."""
        return [Unit(class_folder(c), weight=float(files)) for c, files in self.classes.items()]

    def done(self, unit: Unit) -> bool:
        """Whether the class's folder is there, which appears whole."""
        return (self.output / unit.name / CLASS).is_file()

    def open(self) -> Callable[[Unit], None]:
        """Load the classifier; a class's images are read when it is at hand."""
        import torch

        from spurbench.discovery.explore import Explorer
        from spurbench.images.pixels import default_decoders
        from spurbench.images.sources import open_positives

        os.chdir(self.here)
        device = choose_device(self.device)
        if device.type == "cpu":
            torch.set_num_threads(1)
        classifier = self.member.load(device)
        if classifier.info.weights_sha256 != self.weights:
            raise SpurbenchError(
                f"{self.member.asked} is not the classifier any more that the discovery began "
                "with; give the same command again"
            )
        explorer = Explorer(
            classifier,
            self.settings,
            batch_size=self.batch_size or classifier.default_batch_size,
            decoders=1 if device.type == "cpu" else default_decoders(),
        )
        index_of = {class_folder(index): index for index in self.classes}

        def do(unit: Unit) -> None:
            index = index_of[unit.name]
            given = open_positives(self.images, only={index}, decode=False)
            explorer.explore(index, given.records, self.output / unit.name)

        return do
