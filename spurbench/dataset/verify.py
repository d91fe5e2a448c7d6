"""Whether a dataset folder is whole, consistent with itself, and loads as its card says.

A dataset that passes is undamaged and complete. It is not proof of who made it: someone who changes
an image can seal the change with new hashes, as the builder sealed the original.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from spurbench.core import atomic
from spurbench.core.checks import Check
from spurbench.core.documents import read_json, read_text
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import file_sha256
from spurbench.core.imagenet import imagenet_wnids
from spurbench.core.scratch import scratch
from spurbench.dataset import card, croissant
from spurbench.dataset.manifest import MANIFEST, Manifest, StoredRows, content_hash, shards
from spurbench.dataset.rows import (
    OWN_PARTS,
    REPLICATED,
    SEED_END,
    TWINS,
    Config,
    PartName,
    Row,
    context_of,
    features,
    parts,
    place,
)
from spurbench.images.decode import DamagedImageError, decode_rgb
from spurbench.images.records import SPLITS, Split

DOWNLOADED = (".gitattributes", ".git/", ".cache/huggingface/")
"""What the hub, git and the hub's client add to a dataset; none of it is loaded."""


def verify(folder: Path) -> list[Check]:
    """Check a dataset, in an order in which each check can trust what passed before it.

    Every check is made that can be; the dataset is sound if every one has the status ``ok``. One is
    skipped where an earlier one failed, or where this machine can't make it.

    Raises:
        SpurbenchError: if there is no such folder.
    """
    if not folder.is_dir():
        raise SpurbenchError(f"no folder at {folder}; verify takes a dataset of spurbench build")
    dataset = _Dataset(folder)
    checks: list[Check] = []
    for name, check, needs in _CHECKS:
        broken = [c.name for c in checks if c.name in needs and c.status != "ok"]
        checks.append(
            Check(name, "skipped", f"needs: {', '.join(broken)}", "mend those first")
            if broken
            else _outcome(name, check, dataset)
        )
    return checks


def require_sound(folder: Path) -> None:
    """Refuse a dataset that does not pass.

    Raises:
        SpurbenchError: with the first failure; or if a check can't be made here.
    """
    checks = verify(folder)
    failed = [check for check in checks if check.status == "fail"]
    if failed:
        raise SpurbenchError(
            f"{folder} fails {len(failed)} checks, first {failed[0].name}: {failed[0].detail}; "
            f"`spurbench verify {folder}` lists them all"
        )
    if skipped := [check for check in checks if check.status == "skipped"]:
        raise SpurbenchError(
            f"{folder} can't be checked here: {skipped[0].name}: {skipped[0].detail}; "
            f"{skipped[0].hint}"
        )


_SHARED = ("class_index", "replicate", "seed", "guidance_scale", "num_inference_steps")
"""What a control has in common with its image."""


class _FaultError(Exception):
    """What a check found wrong."""


class _NotHereError(Exception):
    """Why a check can't be made on this machine, whatever the dataset is."""


class _Dataset:
    """The folder, with what the checks share read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def manifest(self) -> Manifest:
        return Manifest.read(self.folder)

    @cached_property
    def front(self) -> dict[str, Any]:
        front, _ = card.split_front_matter(read_text(self.folder / card.FILE))
        if not isinstance(front, dict):
            raise ValueError("the YAML is no mapping")
        return front

    @cached_property
    def rows(self) -> dict[PartName, list[Row]]:
        """The rows of every part; their images are read one by one."""
        return {part: [*StoredRows(self.folder, part)] for part in self.manifest.counts}

    @property
    def own(self) -> dict[PartName, list[Row]]:
        return {part: self.rows[part] for part in OWN_PARTS if part in self.rows}


def _outcome(name: str, check: Callable[[_Dataset], str], dataset: _Dataset) -> Check:
    try:
        return Check(name, "ok", check(dataset))
    except (_FaultError, SpurbenchError) as fault:
        return Check(name, "fail", str(fault))
    except _NotHereError as problem:
        return Check(name, "skipped", str(problem), "set TMPDIR to a folder with space")
    except Exception as error:  # whatever a damaged file makes a parser raise is a finding
        return Check(name, "fail", f"{type(error).__name__}: {reason(error)[:200]}")


def _manifest(dataset: _Dataset) -> str:
    manifest = dataset.manifest
    if manifest.manifest_sha256 is None:
        raise _FaultError(
            f"{MANIFEST} has no manifest_sha256; build again, finished stages are kept"
        )
    if manifest.manifest_sha256 != manifest.seal():
        raise _FaultError(f"{MANIFEST} is not what was sealed: manifest_sha256 differs")
    if [entry.version for entry in manifest.changelog[:1]] != [manifest.version]:
        raise _FaultError(f"the changelog's first entry is not version {manifest.version}")
    return f"{manifest.name} {manifest.version}"


def _files(dataset: _Dataset) -> str:
    listed = {*dataset.manifest.files, MANIFEST}
    there = {
        path.relative_to(dataset.folder).as_posix()
        for path in dataset.folder.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }
    if missing := sorted(listed - there):
        raise _FaultError(f"missing: {', '.join(missing)}")
    extra = [name for name in sorted(there - listed) if not name.startswith(DOWNLOADED)]
    if extra:
        raise _FaultError(f"not of this dataset: {', '.join(extra)}")
    return f"{len(listed)} files, none missing, none extra"


def _hashes(dataset: _Dataset) -> str:
    listed = dataset.manifest.files
    changed = [
        name
        for name, digest in listed.items()
        if (dataset.folder / name).is_file() and file_sha256(dataset.folder / name) != digest
    ]
    if changed:
        raise _FaultError(f"changed: {', '.join(changed)}")
    return f"sha256 of {len(listed)} files"


def _schema(dataset: _Dataset) -> str:
    import datasets

    expected = features(dataset.manifest.quality)
    files = 0
    for part in dataset.manifest.counts:
        for shard in shards(dataset.folder, part):
            found = datasets.Features.from_arrow_schema(pq.read_schema(shard))
            if found != expected:
                raise _FaultError(f"{shard.name}: {_first_difference(expected, found)}")
            files += 1
    return f"{len(expected)} columns in {files} parquet files"


def _counts(dataset: _Dataset) -> str:
    counts = dataset.manifest.counts
    for part, count in counts.items():
        if len(dataset.rows[part]) != count:
            raise _FaultError(f"{part} has {len(dataset.rows[part])} rows, {MANIFEST} says {count}")
    if empty := [split for split in SPLITS if not counts.get(split)]:
        raise _FaultError(f"no images in split {', '.join(empty)}")
    belonging = parts(dataset.own)
    for part, expected in belonging.items():
        if dataset.rows.get(part) != expected:
            raise _FaultError(f"{part} does not hold the {len(expected)} rows that it should")
    if extra := sorted(counts.keys() - belonging.keys()):
        raise _FaultError(f"no rows belong in {', '.join(extra)}")
    return ", ".join(f"{part} {count}" for part, count in counts.items())


def _rows(dataset: _Dataset) -> str:
    identities: dict[int, tuple[str, str]] = {}
    for part, rows in dataset.own.items():
        _, split = place(part)
        for row in rows:
            if row.source != split:
                raise _FaultError(f"{row.file_name} is {row.source}, in split {split}")
            faults = _faults(row, dataset.manifest), _misplaced(row, part, dataset.manifest)
            for fault in chain(*faults):
                raise _FaultError(f"{row.file_name}: {fault}")
            identity = (row.class_name, row.spurious_feature)
            if identities.setdefault(row.class_index, identity) != identity:
                raise _FaultError(
                    f"{row.file_name}: class {row.class_index} is {' / '.join(identity)}, "
                    f"elsewhere {' / '.join(identities[row.class_index])}"
                )
    for part in TWINS:
        _require_twins(dataset, part)
    if content_hash(dataset.own, dataset.manifest.provenance) != dataset.manifest.content:
        raise _FaultError(
            f"rows and provenance are not those whose hash {MANIFEST} holds as content"
        )
    return "classes, answers, scores, and the hash of all rows and their provenance"


def _faults(row: Row, manifest: Manifest) -> Iterator[str]:
    """What can't be true of a row, whatever was built."""
    wnids = imagenet_wnids()
    if not 0 <= row.class_index < len(wnids):
        yield f"class_index {row.class_index} is not in 0..{len(wnids) - 1}"
        return
    if row.label != row.class_index:
        yield "label is not class_index"
    if row.wnid != wnids[row.class_index]:
        yield f"wnid {row.wnid} is not {wnids[row.class_index]}, that of class {row.class_index}"
    for name in ("object_score", "feature_score"):
        score = getattr(row, name)
        if score is not None and not 0 <= score <= 1:
            yield f"{name} {score} is not in [0, 1]"
    if [answer.classifier for answer in row.panel] != [m.name for m in manifest.provenance.panel]:
        yield "panel does not hold the answers of the panel in the provenance"
    for answer in row.panel:
        if not 0 <= answer.probability <= 1:
            yield f"{answer.classifier}'s probability {answer.probability} is not in [0, 1]"
        if not -1 <= answer.prediction < len(wnids):
            yield f"{answer.classifier}'s prediction {answer.prediction} is no class"
        if answer.rank < 1 or (answer.rank == 1) != (answer.prediction == row.class_index):
            yield f"{answer.classifier}'s rank {answer.rank} does not fit its prediction"
    if row.consistently_spurious != all(answer.rank == 1 for answer in row.panel):
        yield "consistently_spurious is not what the panel answers"


def _misplaced(row: Row, part: PartName, manifest: Manifest) -> Iterator[str]:
    """What can't be true of a row of this part."""
    _, split = place(part)
    if row.seed is not None and not 0 <= row.seed < SEED_END:
        yield f"seed {row.seed} is not in 0..2^53 - 1"
    if split == "real" and row.seed is not None:
        yield "a real image has a seed"
    if row.replicate < 0 or (row.replicate and part not in REPLICATED):
        yield f"replicate {row.replicate} in {part}"
    if row.is_reference and part != "real":
        yield f"is_reference in {part}"
    if (row.twin_of is not None) != (part in TWINS):
        yield f"twin_of is {row.twin_of} in {part}"
    if part == "controls-generated" and row.kappa is not None:
        yield f"kappa {row.kappa} of a control"
    if part == "contexts-generated" and not context_of(row, manifest.provenance.contexts):
        yield "prompt names none of the recipe's contexts"
    if part == "positives-generated" and row.object_absent:
        yield "a positive in which the detector does not see the class"


def _require_twins(dataset: _Dataset, part: PartName) -> None:
    """Where there are controls, each is one generated image's, and none is without."""
    controls = dataset.own.get(part)
    if not controls:
        return
    config, _ = place(part)
    known = {row.image_sha256: row for row in dataset.own["generated"]}
    for row in controls:
        if (image := known.get(str(row.twin_of))) is None:
            raise _FaultError(f"{config}: {row.file_name}: twin_of names no generated image")
        for column in _SHARED:
            if getattr(row, column) != getattr(image, column):
                raise _FaultError(
                    f"{config}: {row.file_name}: {column} is {getattr(row, column)}, its image's "
                    f"{getattr(image, column)}"
                )
    twins = Counter(row.twin_of for row in controls)
    for row in dataset.own["generated"]:
        if not twins[row.image_sha256]:
            raise _FaultError(f"{config}: {row.file_name} has no control")
    if twins.total() != len(dataset.own["generated"]):
        (twice, count), *_ = twins.most_common(1)
        raise _FaultError(f"{config}: {count} are twins of image {twice}")


def _images(dataset: _Dataset) -> str:
    checked = 0
    for part in dataset.manifest.counts:
        for row in dataset.rows[part]:
            image = row.read()
            if hashlib.sha256(image).hexdigest() != row.image_sha256:
                raise _FaultError(f"{part}: {row.file_name} is not the image of its image_sha256")
            try:
                decode_rgb(image)
            except DamagedImageError as error:
                raise _FaultError(f"{part}: {row.file_name} can't be decoded: {error}") from None
            checked += 1
    return f"{checked} images decode and have the hash in image_sha256"


def _card(dataset: _Dataset) -> str:
    """The YAML against the manifest: what the loader and the hub go by."""
    manifest, front = dataset.manifest, dataset.front
    configs = {entry.get("config_name"): entry for entry in front.get("configs") or []}
    infos = {entry.get("config_name"): entry for entry in front.get("dataset_info") or []}
    expected = _by_config(manifest)
    for label, found in (("configs", configs), ("dataset_info", infos)):
        if found.keys() != expected.keys():
            raise _FaultError(f"{label} of {card.FILE}: {list(found)}, not {list(expected)}")
    for config, of_split in expected.items():
        entry, info = configs[config], infos[config]
        if entry.get("version") != manifest.version:
            raise _FaultError(
                f"config {config} of {card.FILE} has version {entry.get('version')}, not "
                f"{manifest.version}; without it the loader's cache gives old rows"
            )
        if manifest.content[:16] not in str(info.get("description")):
            raise _FaultError(
                f"config {config} of {card.FILE}: description without the content's hash"
            )
        files = [{"split": s, "path": f"data/{part}-*.parquet"} for s, part in of_split.items()]
        if entry.get("data_files") != files:
            raise _FaultError(f"config {config} of {card.FILE}: data_files are not {files}")
        if told := [key for key in ("features", "splits") if key in info]:
            raise _FaultError(
                f"config {config} of {card.FILE}: {' and '.join(told)} in dataset_info; the "
                "parquet says what they are"
            )
    if not front.get("license"):
        raise _FaultError(f"{card.FILE} names no license")
    return f"YAML of {len(configs)} configs: version, content, files, licence"


def _croissant(dataset: _Dataset) -> str:
    document = read_json(dataset.folder / croissant.FILE)
    manifest = dataset.manifest
    expected = (f"spurbench-{manifest.name}", manifest.version)
    if (document["name"], document["version"]) != expected:
        raise _FaultError(f"{croissant.FILE} is of {document['name']} {document['version']}")
    hashes = {f["contentUrl"]: f["sha256"] for f in document["distribution"] if "sha256" in f}
    if hashes != {k: v for k, v in manifest.files.items() if k.endswith(".parquet")}:
        raise _FaultError(f"{croissant.FILE} does not list the parquet files and their hashes")
    if [r["@id"] for r in document["recordSet"]] != list(manifest.counts):
        raise _FaultError(
            f"{croissant.FILE} has other record sets than {', '.join(manifest.counts)}"
        )
    return f"{len(document['recordSet'])} record sets, {len(hashes)} files"


def _loads(dataset: _Dataset) -> str:
    """A real ``load_dataset``, with a cache of its own that no earlier version can have filled."""
    try:
        return _loaded(dataset)
    except Exception as error:
        if (code := atomic.refusal(error)) is None:
            raise
        raise _NotHereError(f"this machine can't load it: {os.strerror(code)}") from None


def _loaded(dataset: _Dataset) -> str:
    import datasets

    folder, manifest = dataset.folder, dataset.manifest
    expected = _by_config(manifest)
    for config, of_split in expected.items():
        counts = {split: manifest.counts[part] for split, part in of_split.items()}
        with scratch() as cache:
            loaded = datasets.load_dataset(str(folder), config, cache_dir=str(cache))
            found = {split: len(rows) for split, rows in loaded.items()}
            if found != counts:
                raise _FaultError(f"config {config} loads {found}, not {counts}")
            for split, rows in loaded.items():
                if rows.features != features(manifest.quality):
                    raise _FaultError(f"config {config}, {split}: other features than the columns")
                if str(rows.info.version) != manifest.version:
                    raise _FaultError(f"config {config} loads as version {rows.info.version}")
                hashes = Counter(row.image_sha256 for row in dataset.rows[of_split[split]])
                if Counter(rows["image_sha256"]) != hashes:
                    raise _FaultError(
                        f"config {config}, {split}: other images than the parquet holds"
                    )
            del loaded, rows  # their files are mapped into memory; Windows can't delete such
    return f"configs {', '.join(expected)} with the splits, rows and features of the card"


def _by_config(manifest: Manifest) -> dict[Config, dict[Split, PartName]]:
    configs: dict[Config, dict[Split, PartName]] = {}
    for part in manifest.counts:
        config, split = place(part)
        configs.setdefault(config, {})[split] = part
    return configs


def _first_difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    for name in {**expected, **found}:
        if name not in found:
            return f"column {name} is missing"
        if name not in expected:
            return f"column {name} is unknown"
        if expected[name] != found[name]:
            return f"column {name} is {str(found[name])[:80]}, not {str(expected[name])[:80]}"
    return f"columns in the order {', '.join(found)}"


_CHECKS: tuple[tuple[str, Callable[[_Dataset], str], tuple[str, ...]], ...] = (
    ("manifest", _manifest, ()),
    ("files", _files, ("manifest",)),
    ("hashes", _hashes, ("manifest",)),
    ("schema", _schema, ("manifest",)),
    ("counts", _counts, ("manifest", "schema")),
    ("rows", _rows, ("manifest", "schema")),
    ("images", _images, ("manifest", "schema")),
    ("card", _card, ("manifest",)),
    ("croissant", _croissant, ("manifest",)),
    ("load_dataset", _loads, ("manifest", "schema", "card")),
)
"""Name, check, and the names of those without which it means nothing."""
