"""What a build is asked for, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.build.store import Stage
from spurbench.classifiers.load import read_member
from spurbench.core.environment import choose_device
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.dataset.manifest import Manifest, PositiveCounts, require_writable
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.load import read_recipe
from spurbench.recipe.schema import Recipe

if TYPE_CHECKING:
    import torch


MOST_REPLICATES = 100
"""Far more than anyone wants: beyond lies a slip of the keyboard."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        recipe: every number.
        classes: for which pairs.
        data: folder of real images in the Spurious ImageNet layout; None: the recipe's own.
        output: the dataset's folder.
        work: the stage store's folder.
        version: of the dataset, X.Y.Z.
        seed: global seed.
        device: where the models run.
        force: make every stage again.
        previous: folder of the version before, whose changelog goes on; None: this is the first.
        note: for the changelog, what is new.
        positives: folder of photographs of the classes, in ImageNet's layout; None: the base model
            makes them.
        replicates: independently fine-tuned generators of each class, each of which makes as many
            images as the recipe says.
        gpus_per_class: GPUs that fine-tune one class together.
    """

    recipe: Recipe
    classes: Sequence[SpuriousClass]
    data: Path | None
    output: Path
    work: Path
    version: str
    seed: int
    device: torch.device
    force: bool = False
    previous: Path | None = None
    note: str | None = None
    positives: Path | None = None
    replicates: int = 1
    gpus_per_class: int = 1

    @property
    def images(self) -> str:
        """Where the real images are.

        Raises:
            SpurbenchError: if none are given, and the recipe has none of its own.
        """
        return self.recipe.photographs(self.data)

    def absolute(self) -> BuildRequest:
        """The same with absolute paths, for processes that may be elsewhere."""
        recipe = self.recipe
        return replace(
            self,
            recipe=recipe.at([f.absolute() for f in recipe.folders], recipe.classes),
            data=self.data and self.data.absolute(),
            output=self.output.absolute(),
            work=self.work.absolute(),
            positives=self.positives and self.positives.absolute(),
        )

    def replicate_seed(self, replicate: int) -> int:
        """The global seed of one generator of each class; the first has the build's own."""
        return derive_seed(self.seed, "replicate", replicate) if replicate else self.seed

    @classmethod
    def of(
        cls,
        recipe: str,
        *,
        classes: str = "all",
        data: Path | None = None,
        overrides: Sequence[str] = (),
        output: Path | None = None,
        work: Path | None = None,
        version: str | None = None,
        previous: Path | None = None,
        note: str | None = None,
        seed: int = 0,
        device: str = "auto",
        force: bool = False,
        positives: Path | None = None,
        replicates: int = 1,
        gpus_per_class: int = 1,
        elsewhere: bool = False,
    ) -> BuildRequest:
        """A request in the words of people; see :func:`spurbench.api.build`.

        What is wrong with it is said now, and not after the seconds that a build takes to import.
        With ``elsewhere`` a device that is named is one of other machines, and not looked for here.

        Raises:
            SpurbenchError: for an unknown recipe, class, device or version, an impossible number of
                replicates, a batch that can't be shared out, an output that holds something else,
                a previous version or a folder of positives that is none, or a classifier of the
                panel that can't be what is asked for.
        """
        if not 1 <= replicates <= MOST_REPLICATES:
            raise SpurbenchError(f"--replicates {replicates} is not in 1..{MOST_REPLICATES}")
        if positives is not None and not positives.is_dir():
            raise SpurbenchError(
                f"no folder at {positives}; --positives takes one in ImageNet's layout"
            )
        read = read_recipe(recipe, overrides)
        if gpus_per_class < 1 or read.finetune.batch_size % gpus_per_class:
            raise SpurbenchError(
                f"finetune.batch_size {read.finetune.batch_size} can't be shared out among "
                f"--gpus-per-class {gpus_per_class}; it must be a multiple of it"
            )
        chosen = read.classes.select(classes)
        version = read.version if version is None else version
        folder = output or Path("out") / f"spurbench-{read.name}-{version}"
        require_writable(folder, name=read.name, version=version)
        if previous is not None:
            Manifest.read(previous)
        for asked in (*read.panel.classifiers, read.panel.phi):
            read_member(asked, read.folder)
        return cls(
            recipe=read,
            classes=chosen,
            data=data,
            output=folder,
            work=work or folder.parent / ".stages" / read.name,
            version=version,
            seed=seed,
            device=_device(device, elsewhere),
            force=force,
            previous=previous,
            note=note,
            positives=positives,
            replicates=replicates,
            gpus_per_class=gpus_per_class,
        )


def _device(wanted: str, elsewhere: bool) -> torch.device:
    if elsewhere and wanted == "cuda":
        import torch

        return torch.device("cuda")
    return choose_device(wanted)


@dataclass
class Built:
    """What a build did.

    Attributes:
        output: the dataset's folder.
        complete: whether the dataset is there, with every class that did not fail.
        written: False if the dataset there was already this one.
        failed: class name to error.
        positives: class name to how many were asked for, and kept.
        stages: (class name or noun, label) to the finished stage.
    """

    output: Path
    complete: bool = False
    written: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    positives: dict[str, PositiveCounts] = field(default_factory=dict)
    stages: dict[tuple[str, str], Stage] = field(default_factory=dict)

    @property
    def seconds(self) -> dict[tuple[str, str], tuple[float, bool]]:
        """(class name or noun, label) to the stage's seconds, and whether a stored one served."""
        return {name: (stage.seconds, stage.reused) for name, stage in self.stages.items()}
