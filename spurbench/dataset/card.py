"""The dataset card: the YAML that loaders read, the page that people read, the sample grid."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml
from PIL import Image, ImageDraw, ImageFont

from spurbench.core import markdown
from spurbench.core.resources import card_templates
from spurbench.dataset.manifest import ChangelogEntry, Provenance
from spurbench.dataset.rows import (
    PartName,
    Rows,
    class_indices,
    describe_columns,
    panel_accuracy,
    place,
    share,
)
from spurbench.images.decode import decode_rgb
from spurbench.images.records import SPLITS

if TYPE_CHECKING:
    import jinja2

FILE = "README.md"
LICENCE = "LICENSE"
SAMPLES = "samples.png"
SAMPLE_CLASSES = 24

HOMEPAGE = "https://arxiv.org/abs/2402.08200"
"""The paper whose method it is."""


@dataclass(frozen=True)
class Part:
    """The files of one split of one config, as written.

    Attributes:
        rows: how many.
        data_bytes: of the rows in memory (Arrow).
        files: path in the dataset to hex sha256.
        file_bytes: of those files together.
    """

    rows: int
    data_bytes: int
    files: Mapping[str, str]
    file_bytes: int


@dataclass(frozen=True)
class Edition:
    """One version of a dataset: what its card and its metadata say of it.

    Attributes:
        name: of the dataset.
        version: X.Y.Z.
        content: hex sha256 over rows and provenance.
        provenance: how it was made.
        changelog: the newest version first (:mod:`spurbench.dataset.changelog`).
        quality: image quality metrics among the columns.
        parts: by :func:`spurbench.dataset.rows.place`-able names, only those with rows.
    """

    name: str
    version: str
    content: str
    provenance: Provenance
    changelog: Sequence[ChangelogEntry]
    quality: Sequence[str]
    parts: Mapping[PartName, Part]


def render(edition: Edition, rows: Rows) -> str:
    """The card, Markdown after YAML; text from outside is escaped in both."""
    body = _page().render(
        edition=edition,
        provenance=edition.provenance,
        parts=[(*place(part), facts) for part, facts in edition.parts.items()],
        classes=_class_table(rows),
        columns=[
            {"name": name, "kind": column[0], "meaning": column[1]}
            for name, column in describe_columns(edition.quality).items()
        ],
        recipe=markdown.embedded_json(edition.provenance.recipe),
        citations=citations(),
        samples=SAMPLES,
        sample_classes=SAMPLE_CLASSES,
    )
    return f"{front_matter_text(front_matter(edition))}\n{body}"


@cache
def _page() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(card_templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # the filters below escape Markdown and HTML alike
    )
    environment.filters["md"] = markdown.escape
    environment.filters["percent"] = _percent
    return environment.get_template("dataset.md.jinja")


def front_matter(edition: Edition) -> dict[str, Any]:
    """The YAML that ``load_dataset`` and the hub read, and no more than they need.

    Column types are not in it, for every parquet file carries its own; numbers of rows neither,
    for a loader that is told them refuses ``filters``. The loader's cache is keyed by this YAML and
    not by the files (seen with datasets 5.2), so each config has the version, and a description
    with the content's hash for the same version made anew.
    """
    configs: dict[str, dict[str, Any]] = {}
    infos: dict[str, dict[str, Any]] = {}
    for part, facts in edition.parts.items():
        config, split = place(part)
        entry = configs.setdefault(
            config, {"config_name": config, "version": edition.version, "data_files": []}
        )
        entry["data_files"].append({"split": split, "path": f"data/{part}-*.parquet"})
        info = infos.setdefault(
            config,
            {
                "config_name": config,
                **information(edition.name, edition.version, edition.content, edition.provenance),
                "download_size": 0,
                "dataset_size": 0,
            },
        )
        info["download_size"] += facts.file_bytes
        info["dataset_size"] += facts.data_bytes
    if "default" in configs:
        configs["default"]["default"] = True
    return {
        "pretty_name": f"spurbench {edition.name} {edition.version}",
        **licence_fields(),
        "language": ["en"],
        "size_categories": [_size_category(edition.parts)],
        "source_datasets": _sources(edition.provenance),
        "task_categories": ["image-classification"],
        "tags": ["spurious-features", "robustness", "imagenet", "synthetic", "croissant"],
        "configs": list(configs.values()),
        "dataset_info": list(infos.values()),
    }


def front_matter_text(front: Mapping[str, Any]) -> str:
    """The YAML between its two lines of ``---``; every text on one line."""
    yaml_text = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True, width=math.inf)
    return f"---\n{yaml_text}---\n"


def information(name: str, version: str, content: str, provenance: Provenance) -> dict[str, str]:
    """What a loaded dataset's ``info`` says of itself.

    Args:
        name: of the dataset.
        version: X.Y.Z.
        content: hex sha256 over rows and provenance.
        provenance: how it was made.
    """
    return {
        "description": f"spurbench {name} {version}, content {content[:16]}",
        "license": " ".join(f"{line}." for line in licence_lines(provenance)),
        "homepage": HOMEPAGE,
        "citation": citations(),
    }


def licence_fields() -> dict[str, str]:
    """The YAML's fields of a licence that is none of the hub's own; it lies in :data:`LICENCE`."""
    return {
        "license": "other",
        "license_name": "images-and-base-model",
        "license_link": LICENCE,
    }


def write_licence(folder: Path, provenance: Provenance) -> None:
    """Write the file that the YAML links."""
    text = "\n".join(licence_lines(provenance)) + "\n"
    (folder / LICENCE).write_text(text, encoding="utf-8")


def licence_lines(provenance: Provenance) -> tuple[str, str]:
    """The licences that a dataset is under, in the words of their owners, a line each."""
    return (
        f"Real images: {markdown.plain(provenance.licences.images)}",
        "Base model weights, whose terms extend to what they generate: "
        f"{markdown.plain(provenance.licences.weights)}",
    )


def citations() -> str:
    """BibTeX of the papers that a user of any dataset should cite."""
    return (card_templates() / "citations.bib").read_text(encoding="utf-8").strip()


def split_front_matter(card: str) -> tuple[Any, str]:
    """The YAML of a card as values, and the Markdown after it.

    Raises:
        ValueError: if there is no YAML, or it can't be parsed; the message is one line.
    """
    pieces = card.split("---\n", 2)
    if len(pieces) != 3 or pieces[0]:
        raise ValueError("no YAML between two lines of ---")
    try:
        return yaml.safe_load(pieces[1]), pieces[2]
    except yaml.YAMLError as error:
        raise ValueError(f"the YAML can't be parsed: {' '.join(str(error).split())}") from None


def sample_grid(rows: Rows, columns: int = 5, side: int = 112) -> Image.Image:
    """Per class a row: the first real images, then the first generated ones; not chosen by hand.

    Of the first :data:`SAMPLE_CLASSES` classes.
    """
    indices = class_indices(rows)[:SAMPLE_CLASSES]
    label, gap, head = 170, 16, 26
    width = label + 2 * columns * side + gap
    sheet = Image.new("RGB", (width, head + side * len(indices)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for at, title in ((0, "real"), (1, "generated")):
        draw.text((label + at * (columns * side + gap) + 4, 4), title, "black", font)
    for position, index in enumerate(indices):
        top = head + position * side
        for at, split in enumerate(SPLITS):
            chosen = [row for row in rows[split] if row.class_index == index][:columns]
            for column, row in enumerate(chosen):
                tile = decode_rgb(row.read()).resize((side - 2, side - 2), Image.Resampling.LANCZOS)
                sheet.paste(tile, (label + at * (columns * side + gap) + column * side, top))
            if chosen:
                name, feature = chosen[0].class_name, chosen[0].spurious_feature
                draw.text((4, top + 34), name[:22], "black", font)
                draw.text((4, top + 54), feature[:22], "#555555", font)
    return sheet


def _class_table(rows: Rows) -> list[dict[str, Any]]:
    table = []
    for index in class_indices(rows):
        per_split = {s: [r for r in rows[s] if r.class_index == index] for s in SPLITS}
        first = next(r for s in SPLITS for r in per_split[s])
        entry: dict[str, Any] = {
            "index": index,
            "name": first.class_name,
            "feature": first.spurious_feature,
        }
        for split, chosen in per_split.items():
            entry[split] = {
                "n": len(chosen),
                "consistent": share(r.consistently_spurious for r in chosen),
                "absent": share(r.object_absent for r in chosen),
                "accuracy": panel_accuracy(chosen),
            }
        table.append(entry)
    return table


def _size_category(parts: Mapping[PartName, Part]) -> str:
    """The hub's word for how many images there are; curated ones are among the others."""
    images = sum(facts.rows for part, facts in parts.items() if place(part)[0] != "curated")
    bounds = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
    return next((word for bound, word in bounds if images < bound), "n>1M")


def _sources(provenance: Provenance) -> list[str]:
    """``original``, for what is generated; and what is extended, unless the recipe brings it."""
    real = provenance.real_images.name
    own = provenance.recipe.get("data", {}).get("images")
    if own is not None and PurePosixPath(own).name == real:
        return ["original"]
    return ["original", "extended|other-" + re.sub("[^a-z0-9]+", "-", real.lower()).strip("-")]


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"
