"""The emitted dataset: parquet, card, provenance; written whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import yaml
from PIL import Image, ImageDraw, ImageFont

from spurbench import atomic, markdown
from spurbench.classes import imagenet_names
from spurbench.errors import SpurbenchError
from spurbench.images import decode_rgb
from spurbench.resources import card_templates
from spurbench.runs import file_sha256, fingerprint

MANIFEST = "spurbench.json"
SCHEMA = "spurbench.dataset/1"
SPLITS = ("real", "generated")
SHARD_BYTES = 500_000_000

Row = Mapping[str, Any]


def features(quality: Sequence[str]) -> datasets.Features:
    """The columns; see the card for what each holds.

    Args:
        quality: image quality metrics, a float column each.
    """
    text, real, whole, truth = (
        datasets.Value(kind) for kind in ("string", "float64", "int64", "bool")
    )
    return datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(imagenet_names())),
            "class_index": whole,
            "class_name": text,
            "wnid": text,
            "spurious_feature": text,
            "component": whole,
            "source": text,
            "prompt": text,
            "seed": whole,
            "guidance_scale": real,
            "num_inference_steps": whole,
            "kappa": real,
            "base_model": text,
            "is_reference": truth,
            "consistently_spurious": truth,
            "object_absent": truth,
            "object_score": real,
            "feature_present": truth,
            "feature_score": real,
            **dict.fromkeys(quality, real),
            "panel": datasets.List(
                {"classifier": text, "prediction": whole, "probability": real, "rank": whole}
            ),
            "file_name": text,
            "image_sha256": text,
        }
    )


def require_writable(output: Path, *, name: str, version: str) -> None:
    """Refuse an output folder that a dataset of this name and version must not replace.

    Raises:
        SpurbenchError: if the version is not X.Y.Z, or the folder holds another dataset, another
            version, or anything that is not a dataset of ``spurbench build``.
    """
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise SpurbenchError(f"--version {version!r} is not X.Y.Z, e.g. 1.0.0")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST).is_file():
        raise SpurbenchError(
            f"{output} is there and is not a dataset of spurbench build; choose another --output"
        )
    held = read_manifest(output)
    if (held["name"], held["version"]) != (name, version):
        raise SpurbenchError(
            f"{output} holds {held['name']} {held['version']}, not {name} {version}; choose "
            "another --output, or delete it"
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The provenance of a finished dataset.

    Raises:
        SpurbenchError: if the folder holds none, or one of another schema.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpurbenchError(
            f"{folder} is not a finished dataset of spurbench build: no {MANIFEST}"
        ) from None
    except ValueError as error:
        raise SpurbenchError(f"{folder / MANIFEST} is damaged: {error}") from None
    if manifest.get("schema") != SCHEMA:
        raise SpurbenchError(f"{folder / MANIFEST} is not of schema {SCHEMA}")
    return manifest


def write_dataset(
    output: Path,
    rows: Mapping[str, Sequence[Row]],
    provenance: Mapping[str, Any],
    *,
    name: str,
    version: str,
    quality: Sequence[str],
) -> bool:
    """Write the dataset folder; the folder that is there is replaced only when all is written.

    Identical rows give byte-identical parquet. The manifest, with every file's hash, is written
    last.

    Args:
        output: the folder.
        rows: of the splits ``real`` and ``generated``, in the columns of :func:`features` but for
            ``image``, the encoded bytes.
        provenance: how it was made, as JSON values.
        name: of the dataset.
        version: X.Y.Z.
        quality: image quality metrics among the columns.

    Returns:
        False if the folder held the very same dataset already; nothing is written then.
    """
    content = fingerprint(
        {
            "provenance": provenance,
            "rows": {
                split: [{k: v for k, v in row.items() if k != "image"} for row in rows[split]]
                for split in SPLITS
            },
        }
    )
    if (output / MANIFEST).is_file():
        held = read_manifest(output)
        same = (held["name"], held["version"], held["content"]) == (name, version, content)
        if same and all(
            (output / file).is_file() and file_sha256(output / file) == digest
            for file, digest in held["files"].items()
        ):
            return False
    kind = features(quality)
    parts: dict[str, Sequence[Row]] = {split: rows[split] for split in SPLITS}
    parts |= {f"curated-{split}": [r for r in rows[split] if _curated(r)] for split in SPLITS}
    parts = {part: list(chosen) for part, chosen in parts.items() if chosen}
    with atomic.folder(output) as folder:
        (folder / "data").mkdir()
        for part, chosen in parts.items():
            _write_parquet(folder / "data", part, chosen, kind)
        _sample_grid(rows).save(folder / "samples.png", optimize=True)
        (folder / "README.md").write_text(
            _card(parts, rows, provenance, kind, name=name, version=version, content=content),
            encoding="utf-8",
        )
        manifest = {
            "schema": SCHEMA,
            "name": name,
            "version": version,
            "content": content,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "counts": {part: len(chosen) for part, chosen in parts.items()},
            "quality": list(quality),
            "provenance": provenance,
            "files": {
                str(path.relative_to(folder)): file_sha256(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        }
        atomic.write_json(folder / MANIFEST, manifest)
    return True


def read_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a finished dataset, as :func:`write_dataset` takes them."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        rows[split] = []
        for file in sorted(folder.glob(f"data/{split}-*.parquet")):
            rows[split] += pq.read_table(file).to_pylist()
        for row in rows[split]:
            row["image"] = row["image"]["bytes"]
    return rows


def _curated(row: Row) -> bool:
    return bool(row["consistently_spurious"]) and row["object_absent"] is True


def _write_parquet(folder: Path, part: str, rows: Sequence[Row], kind: datasets.Features) -> None:
    total = sum(len(row["image"]) for row in rows)
    shards = max(1, -(-total // SHARD_BYTES))
    for shard in range(shards):
        chosen = rows[len(rows) * shard // shards : len(rows) * (shard + 1) // shards]
        columns: dict[str, list[Any]] = {column: [row[column] for row in chosen] for column in kind}
        columns["image"] = [{"bytes": row["image"], "path": row["file_name"]} for row in chosen]
        table = datasets.Dataset.from_dict(columns, features=kind)
        table.to_parquet(str(folder / f"{part}-{shard:05d}-of-{shards:05d}.parquet"))


def _card(
    parts: Mapping[str, Sequence[Row]],
    rows: Mapping[str, Sequence[Row]],
    provenance: Mapping[str, Any],
    kind: datasets.Features,
    *,
    name: str,
    version: str,
    content: str,
) -> str:
    import jinja2

    front = yaml.safe_dump(
        _front_matter(parts, kind, name=name, version=version, content=content), sort_keys=False
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(card_templates()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # the filter below escapes Markdown and HTML alike
    )
    environment.filters["md"] = markdown.escape
    body = environment.get_template("dataset.md.jinja").render(
        name=name,
        version=version,
        content=content,
        provenance=provenance,
        counts={part: len(chosen) for part, chosen in parts.items()},
        classes=_class_table(rows),
        classifiers=[c["name"] for c in provenance["panel"]],
        columns=[column for column in kind if column != "image"],
    )
    return f"---\n{front}---\n\n{body}"


def _front_matter(
    parts: Mapping[str, Sequence[Row]],
    kind: datasets.Features,
    *,
    name: str,
    version: str,
    content: str,
) -> dict[str, Any]:
    """The YAML that ``load_dataset`` and the hub read.

    The loader's cache is keyed by this YAML and not by the files (seen with datasets 5.2), so each
    config carries the version, and a description with the content's hash for the same version
    made anew.
    """
    configs = []
    for config, prefix in (("default", ""), ("curated", "curated-")):
        files = [
            {"split": split, "path": f"data/{prefix}{split}-*.parquet"}
            for split in SPLITS
            if f"{prefix}{split}" in parts
        ]
        if files:
            entry = {
                "config_name": config,
                "version": version,
                "description": f"spurbench {name} {version}, content {content[:16]}",
                "data_files": files,
            }
            configs.append({**entry, "default": True} if config == "default" else entry)
    return {
        "pretty_name": f"spurbench {name} {version}",
        "license": "other",
        "task_categories": ["image-classification"],
        "tags": ["spurious-features", "robustness", "imagenet", "synthetic"],
        "configs": configs,
        "dataset_info": [
            {"config_name": entry["config_name"], "features": kind._to_yaml_list()}
            for entry in configs
        ],
    }


def _class_table(rows: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    table = []
    for index in sorted({row["class_index"] for split in SPLITS for row in rows[split]}):
        per_split = {s: [r for r in rows[s] if r["class_index"] == index] for s in SPLITS}
        first = next(r for s in SPLITS for r in per_split[s])
        entry: dict[str, Any] = {
            "index": index,
            "name": first["class_name"],
            "feature": first["spurious_feature"],
        }
        for split, chosen in per_split.items():
            entry[split] = {
                "n": len(chosen),
                "consistent": _share([r["consistently_spurious"] for r in chosen]),
                "absent": _share([r["object_absent"] for r in chosen]),
                "accuracy": _share([a["rank"] == 1 for r in chosen for a in r["panel"]]),
            }
        table.append(entry)
    return table


def _share(values: Sequence[bool | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * sum(known) / len(known):.1f} %" if known else "unknown"


def _sample_grid(
    rows: Mapping[str, Sequence[Row]], columns: int = 5, side: int = 112
) -> Image.Image:
    """Per class a row: the first real images, then the first generated ones; not chosen by hand."""
    indices = sorted({row["class_index"] for split in SPLITS for row in rows[split]})[:24]
    label, gap, head = 170, 16, 26
    width = label + 2 * columns * side + gap
    sheet = Image.new("RGB", (width, head + side * len(indices)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for at, title in ((0, "real"), (1, "generated")):
        draw.text((label + at * (columns * side + gap) + 4, 4), title, "black", font)
    for position, index in enumerate(indices):
        top = head + position * side
        for at, split in enumerate(SPLITS):
            chosen = [row for row in rows[split] if row["class_index"] == index][:columns]
            for column, row in enumerate(chosen):
                tile = decode_rgb(row["image"]).resize(
                    (side - 2, side - 2), Image.Resampling.LANCZOS
                )
                sheet.paste(tile, (label + at * (columns * side + gap) + column * side, top))
            if chosen:
                name, feature = chosen[0]["class_name"], chosen[0]["spurious_feature"]
                draw.text((4, top + 34), name[:22], "black", font)
                draw.text((4, top + 54), feature[:22], "#555555", font)
    return sheet
