"""Raw answers: what every classifier says of every image of one making, in a parquet file.

Every figure of the study is computed from these files and the truth alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError, reason
from spurbench.studies.validity import estimators

Role = Literal["image", "twin-base", "twin-finetuned", "prior"]

Part = Literal["panel", "zoo"]
"""The panel chose the references; the zoo had no part in any image."""

_NOTES = b"spurbench"

_FLAGS = ("object_absent", "feature_present", "novel")
_OF_IMAGE = ("class_index", "image_sha256", "role", "twin_of", "generator", *_FLAGS)
_OF_ANSWER = ("predicted", "log_probability", "log_odds")


@dataclass(frozen=True)
class Shown:
    """An image as it is shown to the classifiers: a row of the file but for their answers.

    Attributes:
        class_index: that it is measured for.
        image_sha256: of the encoded image.
        role: image of the test set, or which control.
        twin_of: of a twin the ``image_sha256`` of its image.
        generator: which of several.
        object_absent: to the detector; None without one.
        feature_present: likewise.
        novel: whether it is no copy of a reference to the copy detector; None where none looked.
    """

    class_index: int
    image_sha256: str
    role: Role
    twin_of: str | None = None
    generator: int = 0
    object_absent: bool | None = None
    feature_present: bool | None = None
    novel: bool | None = None


@dataclass(frozen=True)
class Said:
    """What one classifier says of N images.

    Attributes:
        predicted: (N,) ImageNet-1k index of the answer, -1 outside it.
        log_probability: (N,) of the image's class, over the whole head.
        log_odds: (N,) the class against all others.
    """

    predicted: NDArray[np.int64]
    log_probability: NDArray[np.float64]
    log_odds: NDArray[np.float64]


@dataclass(frozen=True)
class Collected:
    """The answers to one making.

    Attributes:
        classifiers: name to part, in the order of ``said``.
        images: N of them.
        said: by classifier.
        notes: by name, such as ``seconds``, a number of each class by index.
    """

    classifiers: Mapping[str, Part]
    images: Sequence[Shown]
    said: Sequence[Said]
    notes: Mapping[str, Mapping[int, float]]

    def of(
        self, class_index: int, role: Role, classifiers: Sequence[str]
    ) -> estimators.Answers | None:
        """Answers to the images of a class in a role; None if there are none."""
        places = self.places(class_index, role)
        if not places:
            return None
        originals = self.places(class_index, "image")
        position = {self.images[p].image_sha256: i for i, p in enumerate(originals)}
        shown = [self.images[p] for p in places]
        seen = [(one.object_absent, one.feature_present) for one in shown]
        names = list(self.classifiers)
        said = [self.said[names.index(name)] for name in classifiers]
        return estimators.Answers(
            hit=np.stack([s.predicted[places] == class_index for s in said]),
            log_probability=np.stack([s.log_probability[places] for s in said]),
            log_odds=np.stack([s.log_odds[places] for s in said]),
            feature_alone=np.array([pair == (True, True) for pair in seen]),
            neither=np.array([pair == (True, False) for pair in seen]),
            generator=np.array([one.generator for one in shown]),
            image=np.array([position.get(one.twin_of or "", -1) for one in shown]),
        )

    def places(self, class_index: int, role: Role) -> list[int]:
        """Positions of the images of a class in a role."""
        return self._places.get((class_index, role), [])

    @cached_property
    def _places(self) -> dict[tuple[int, Role], list[int]]:
        places: dict[tuple[int, Role], list[int]] = {}
        for i, one in enumerate(self.images):
            places.setdefault((one.class_index, one.role), []).append(i)
        return places


@dataclass(frozen=True)
class Key:
    """Which answers."""

    world: str
    making: str
    seed: int

    def within(self, output: Path) -> Path:
        """Their file."""
        return output / "answers" / self.world / f"{self.making}-seed{self.seed}.parquet"


def write(path: Path, collected: Collected, fingerprint: str) -> None:
    """Write answers, a row for each classifier and image, with what they depend on."""
    import pyarrow as pa
    from pyarrow import parquet

    count = len(collected.images)
    columns: dict[str, Any] = {
        "classifier": pa.array(np.repeat([*collected.classifiers], count)).dictionary_encode(),
        "part": pa.array(np.repeat([*collected.classifiers.values()], count)).dictionary_encode(),
    }
    kinds = {"class_index": pa.int64(), "generator": pa.int64()}
    kinds |= dict.fromkeys(_FLAGS, pa.bool_())
    for name in _OF_IMAGE:
        values = [getattr(one, name) for one in collected.images] * len(collected.classifiers)
        columns[name] = pa.array(values, kinds.get(name, pa.string()))
    for name in _OF_ANSWER:
        columns[name] = np.concatenate([getattr(said, name) for said in collected.said])
    notes = {"fingerprint": fingerprint, "notes": collected.notes}
    table = pa.table(columns).replace_schema_metadata({_NOTES: json.dumps(notes)})
    with atomic.writing(path) as file:
        parquet.write_table(table, file, compression="zstd")


def read(path: Path, fingerprint: str | None = None) -> Collected | None:
    """Read answers.

    Args:
        path: of the file.
        fingerprint: of what they depend on today; None: whatever it was.

    Returns:
        None if there is no such file, or it was made of something else.

    Raises:
        SpurbenchError: if it is damaged.
    """
    from pyarrow import parquet

    if not path.is_file():
        return None
    try:
        notes = json.loads((parquet.read_schema(path).metadata or {})[_NOTES])
        if fingerprint is not None and notes["fingerprint"] != fingerprint:
            return None
        table = parquet.read_table(path)
        names = table.column("classifier").to_pylist()
        parts = dict(zip(names, table.column("part").to_pylist(), strict=True))
        count = len(names) // len(parts)
        if names != [name for name in parts for _ in range(count)]:
            raise ValueError("its rows are in another order")
        rows = table.slice(0, count).select(_OF_IMAGE).to_pylist()
        said = [
            Said(*(table.slice(i * count, count).column(n).to_numpy() for n in _OF_ANSWER))
            for i in range(len(parts))
        ]
    except (OSError, ValueError, KeyError, ZeroDivisionError) as error:
        raise SpurbenchError(f"{path} is damaged ({reason(error)}); delete it") from None
    return Collected(
        classifiers=parts,
        images=[Shown(**row) for row in rows],
        said=said,
        notes={
            name: {int(index): value for index, value in each.items()}
            for name, each in notes["notes"].items()
        },
    )
