"""What changed between two versions of a dataset: settings, panel, and images per class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from spurbench.core.documents import Document
from spurbench.core.identity import fingerprint
from spurbench.dataset.manifest import Provenance, Snapshot
from spurbench.dataset.rows import OWN_PARTS, PartName, share

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA: Final = "spurbench.dataset.diff/2"


class Identity(Document):
    """Which dataset."""

    name: str
    version: str


class Setting(Document):
    """A setting that differs; null where one side does not have it."""

    key: str
    old: Any
    new: Any


class ClassChange(Document):
    """What became of the images of one class in one part; also given where nothing changed.

    Attributes:
        added: images of the new version whose bytes the old one does not have.
        removed: the other way round.
        kept: images that both have, byte for byte.
        reexamined: those of the kept whose other columns differ.
        old_panel_accuracy: of the old version's images by its own panel, in [0, 1]; None: no image.
        new_panel_accuracy: the same of the new.
    """

    index: int
    name: str
    part: PartName
    old: int
    new: int
    added: int
    removed: int
    kept: int
    reexamined: int
    old_panel_accuracy: float | None
    new_panel_accuracy: float | None


class Difference(Document):
    """The whole comparison.

    Attributes:
        settings: of the recipe (dotted keys), seed, models, inputs and package versions.
        panel_added: classifiers that only the new panel has.
        panel_removed: classifiers that only the old panel had.
        panel_changed: classifiers of one name with other weights.
        classes: by index; of each, the parts that either version has images in.
    """

    schema_version: Literal["spurbench.dataset.diff/2"] = Field(default=SCHEMA, alias="schema")
    old: Identity
    new: Identity
    settings: list[Setting]
    panel_added: list[str]
    panel_removed: list[str]
    panel_changed: list[str]
    classes: list[ClassChange]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json", by_alias=True)


def compare(old: Snapshot, new: Snapshot) -> Difference:
    """What changed from ``old`` to ``new``; images are the same if their bytes are."""
    before, after = (dict(_settings(version.provenance)) for version in (old, new))
    panels = [
        {member.name: member.weights_sha256 for member in version.provenance.panel}
        for version in (old, new)
    ]
    tallies = [_tally(version) for version in (old, new)]
    names = {index: tally.name for each in tallies for (index, _), tally in each.items()}
    return Difference(
        old=Identity(name=old.name, version=old.version),
        new=Identity(name=new.name, version=new.version),
        settings=[
            Setting(key=key, old=before.get(key), new=after.get(key))
            for key in {**before, **after}
            if before.get(key) != after.get(key)
        ],
        panel_added=[name for name in panels[1] if name not in panels[0]],
        panel_removed=[name for name in panels[0] if name not in panels[1]],
        panel_changed=[n for n in panels[1] if n in panels[0] and panels[0][n] != panels[1][n]],
        classes=[
            _class_change(before_and_after, index, name, part)
            for index, name in sorted(names.items())
            for part in OWN_PARTS
            if any(before_and_after := [each.get((index, part)) for each in tallies])
        ],
    )


def summarise(difference: Difference) -> list[str]:
    """The changes as plain sentences, for a changelog; text from outside is not escaped in them."""
    lines = [f"{s.key}: {_shown(s.old)} -> {_shown(s.new)}" for s in difference.settings]
    for label, names in (
        ("added to the panel", difference.panel_added),
        ("removed from the panel", difference.panel_removed),
        ("other weights in the panel", difference.panel_changed),
    ):
        if names:
            lines.append(f"{label}: {', '.join(names)}")
    for change in difference.classes:
        if not (change.added or change.removed or change.reexamined):
            continue
        counts = [f"{change.added} added", f"{change.removed} removed", f"{change.kept} kept"]
        if change.reexamined:
            counts.append(f"of them {change.reexamined} with other answers or scores")
        accuracies = f"{_percent(change.old_panel_accuracy)} -> " + _percent(
            change.new_panel_accuracy
        )
        lines.append(
            f"{change.name}, {change.part}: {', '.join(counts)}; panel accuracy {accuracies}"
        )
    return lines or ["nothing but the version"]


def to_tables(difference: Difference) -> list[Table]:
    """The comparison for a terminal: settings and panel, then images."""
    from rich.table import Table
    from rich.text import Text

    title = (
        f"{difference.old.name} {difference.old.version} -> "
        f"{difference.new.name} {difference.new.version}"
    )
    settings = Table(title=f"{title}: settings", title_justify="left")
    for heading in ("key", "old", "new"):
        settings.add_column(heading)
    for setting in difference.settings:
        settings.add_row(*map(Text, (setting.key, _shown(setting.old), _shown(setting.new))))
    for label, old_names, new_names in (
        ("panel: removed", difference.panel_removed, ()),
        ("panel: added", (), difference.panel_added),
        ("panel: other weights", difference.panel_changed, difference.panel_changed),
    ):
        if old_names or new_names:
            settings.add_row(label, Text(", ".join(old_names)), Text(", ".join(new_names)))
    images = Table(title=f"{title}: images", title_justify="left")
    headings = ("old", "new", "added", "removed", "kept", "re-examined", "panel accuracy")
    for heading in ("class", "part", *headings):
        images.add_column(heading, justify="right" if heading in headings else "left")
    for c in difference.classes:
        counts = (c.old, c.new, c.added, c.removed, c.kept, c.reexamined)
        accuracies = f"{_percent(c.old_panel_accuracy)} -> {_percent(c.new_panel_accuracy)}"
        images.add_row(Text(c.name), c.part, *map(str, counts), accuracies)
    return [settings, images] if settings.row_count else [images]


def _settings(provenance: Provenance) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of all that is no outcome; the panel is compared by name."""
    for key, value in provenance.as_json().items():
        if key not in ("panel", "damaged", "failed_classes", "positives"):
            # The recipe's keys are written as --set takes them.
            yield from _flattened(value, "" if key == "recipe" else key)


def _flattened(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flattened(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value


@dataclass
class _Tally:
    """What a comparison needs of the rows of one class and part.

    Attributes:
        name: of the class.
        images: their hashes.
        whole: fingerprints of all columns.
        right: whether a panel classifier calls the image its class, for each of both.
    """

    name: str = ""
    images: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    right: list[bool] = field(default_factory=list)


def _tally(version: Snapshot) -> dict[tuple[int, PartName], _Tally]:
    """By class and part, in one pass over the rows."""
    tallies: dict[tuple[int, PartName], _Tally] = {}
    for part in OWN_PARTS:
        for row in version.rows.get(part, ()):
            tally = tallies.setdefault((row.class_index, part), _Tally())
            tally.name = row.class_name
            tally.images[row.image_sha256] += 1
            tally.whole[fingerprint(row.columns())] += 1
            tally.right += [answer.rank == 1 for answer in row.panel]
    return tallies


def _class_change(
    tallies: Sequence[_Tally | None], index: int, name: str, part: PartName
) -> ClassChange:
    old, new = (tally or _Tally() for tally in tallies)
    kept = (old.images & new.images).total()
    return ClassChange(
        index=index,
        name=name,
        part=part,
        old=old.images.total(),
        new=new.images.total(),
        added=new.images.total() - kept,
        removed=old.images.total() - kept,
        kept=kept,
        reexamined=kept - (old.whole & new.whole).total(),
        old_panel_accuracy=share(old.right),
        new_panel_accuracy=share(new.right),
    )


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return str(value)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} %"
