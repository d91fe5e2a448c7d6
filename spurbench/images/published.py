"""Reading datasets that ``spurbench build`` made, from their folder or from the hub."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import ConfigDict, Field

from spurbench.core import hub
from spurbench.core.documents import Document, read_json, validated
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import file_sha256
from spurbench.core.text import label
from spurbench.images.decode import fault
from spurbench.images.parquet import ParquetImages
from spurbench.images.records import (
    SPLITS,
    Config,
    Damaged,
    ImageRecord,
    ImageSet,
    Role,
    Source,
    Split,
)

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

MANIFEST = "spurbench.json"

SCHEMA: Literal["spurbench.dataset/2"] = "spurbench.dataset/2"

BATCH = 256
"""Rows that are read at once, without their images."""

Part = tuple[str, Split]
"""A config and a split; configs are those of images, ``positives`` and ``controls``."""


class _Read(Document):
    """What is read of a dataset; it holds more."""

    model_config = ConfigDict(extra="ignore")


class _Weights(_Read):
    weights_sha256: str


class _Provenance(_Read):
    panel: tuple[_Weights, ...]
    phi: _Weights


class _Manifest(_Read):
    schema_version: Literal["spurbench.dataset/2"] = Field(alias="schema")
    name: str
    version: str
    files: dict[str, str] = Field(description="path to hex sha256")
    provenance: _Provenance

    @classmethod
    def read(cls, path: Path, mend: str) -> _Manifest:
        """Read it; ``mend`` says where there is a whole one."""
        try:
            document = read_json(path)
            if isinstance(document, dict) and document.get("schema") == "spurbench.dataset/1":
                raise SpurbenchError("an older spurbench built it")
            return validated(cls, document, MANIFEST)
        except SpurbenchError as error:
            raise SpurbenchError(f"{path} can't be used ({error}); {mend}") from None

    @property
    def roles(self) -> dict[str, Role]:
        """The part that classifiers had, by weights; phi's where one had both."""
        roles: dict[str, Role] = {one.weights_sha256: "panel" for one in self.provenance.panel}
        return roles | {self.provenance.phi.weights_sha256: "phi"}


class _Row(_Read):
    """All of a row but its image."""

    image_sha256: str
    class_index: int = Field(ge=0, le=999)
    source: Split
    file_name: str
    class_name: str
    spurious_feature: str | None
    object_absent: bool | None
    feature_present: bool | None
    is_reference: bool
    replicate: int = Field(ge=0)
    twin_of: str | None


class _Dataset(Protocol):
    """Rows, wherever they are."""

    where: str
    kind: Literal["dataset", "hub"]
    name: str
    version: str | None
    roles: Mapping[str, Role]

    def has(self, part: Part) -> bool:
        """Whether there is such a part."""
        ...

    def files(self, part: Part) -> Iterator[_File]:
        """A part's files."""
        ...

    def changed(self, part: Part) -> str | None:
        """What is wrong with a part's files, were they changed since they were published."""
        ...


@dataclass(frozen=True)
class _File:
    """Rows of a part.

    Attributes:
        where: what to call it.
        rows: without their images.
        image: returns the encoded image of a row by its number, from 0 on.
    """

    where: str
    rows: Iterable[Any]
    image: Callable[[int], bytes]


def open_dataset(path: Path, splits: Sequence[Split], config: Config, decode: bool) -> ImageSet:
    """A dataset's images from its folder; see :func:`spurbench.images.sources.open_images`."""
    return _open(_Folder(path), splits, config, decode)


def open_hub(name: str, splits: Sequence[Split], config: Config, decode: bool) -> ImageSet:
    """A dataset's images from the hub; see :func:`spurbench.images.sources.open_images`."""
    hub.use_cache_if_unreachable()
    return _open(_Hub(name), splits, config, decode)


def _open(dataset: _Dataset, splits: Sequence[Split], config: Config, decode: bool) -> ImageSet:
    parts: list[Part] = [(config, split) for split in splits]
    for part in parts:
        if not dataset.has(part):
            raise SpurbenchError(f"dataset {dataset.where} has no {_called(part)}")
    images = _read(dataset, parts, None, decode)
    shown: list[Part] = [("positives", split) for split in SPLITS]
    return replace(
        images,
        config=config,
        positives=_read_extra(dataset, shown, "positive", decode),
        controls=_controls(dataset, images, decode) if "generated" in splits else None,
        roles=dataset.roles,
    )


def _controls(dataset: _Dataset, images: ImageSet, decode: bool) -> ImageSet | None:
    """The twins of those of the images that have one."""
    found = _read_extra(dataset, [("controls", "generated")], "control", decode)
    if found is None:
        return None
    present = {(image.class_index, image.sha256) for image in images.records}
    twins = [twin for twin in found.records if (twin.class_index, twin.twin_of) in present]
    return _image_set(dataset, twins, found.damaged) if twins else None


def _read_extra(
    dataset: _Dataset, parts: Sequence[Part], source: Source, decode: bool
) -> ImageSet | None:
    present = [part for part in parts if dataset.has(part)]
    return _read(dataset, present, source, decode) if present else None


def _read(
    dataset: _Dataset, parts: Sequence[Part], source: Source | None, decode: bool
) -> ImageSet:
    """The images of parts, as of ``source`` where it is not their split."""
    records: list[ImageRecord] = []
    damaged: list[Damaged] = []
    for part in parts:
        of_part = len(records)
        for file in dataset.files(part):
            before = len(records) + len(damaged)
            for number, values in enumerate(file.rows):
                where = f"{file.where}, row {number}"
                row = validated(_Row, values, where)
                found = _record(
                    row, part, source, where, dataset.where, partial(file.image, number)
                )
                wrong = fault(found.read()) if decode else None
                if wrong is None:
                    records.append(found)
                else:
                    damaged.append(Damaged(path=found.path, reason=wrong))
            if len(records) + len(damaged) == before:
                raise SpurbenchError(f"{_called(part)} of {dataset.where} is empty; build it again")
        if changed := dataset.changed(part):
            for record in records[of_part:]:
                record.read()  # one that is another is named, which says more
            raise SpurbenchError(changed)
    return _image_set(dataset, records, damaged)


def _image_set(
    dataset: _Dataset, records: Sequence[ImageRecord], damaged: Sequence[Damaged]
) -> ImageSet:
    return ImageSet.of(
        records,
        damaged,
        name=dataset.name,
        kind=dataset.kind,
        where=dataset.where,
        version=dataset.version,
    )


def _record(
    row: _Row,
    part: Part,
    source: Source | None,
    where: str,
    dataset: str,
    read: Callable[[], bytes],
) -> ImageRecord:
    """A row's record; an image that is read is checked to be the one that was published."""
    called = label(row.file_name)
    if row.source != part[1]:
        raise SpurbenchError(
            f"{where}: source is {row.source} in {_called(part)}; "
            f"`spurbench verify {dataset}` says more"
        )
    if source == "control" and row.twin_of is None:
        raise SpurbenchError(f"{where}: {called} is the twin of no image; build it again")
    return ImageRecord(
        path=called,
        class_index=row.class_index,
        source=source or row.source,
        sha256=row.image_sha256,
        read=partial(_published, read, row.image_sha256, f"{where}: {called}", dataset),
        class_name=row.class_name,
        spurious_feature=row.spurious_feature,
        object_absent=row.object_absent,
        feature_present=row.feature_present,
        is_reference=row.is_reference,
        replicate=row.replicate,
        twin_of=row.twin_of,
    )


def _published(read: Callable[[], bytes], digest: str, called: str, dataset: str) -> bytes:
    """An encoded image, if it is the one that was published."""
    data = read()
    if hashlib.sha256(data).hexdigest() != digest:
        raise SpurbenchError(
            f"{called} is not the image that was published, for its sha256 is another; "
            f"`spurbench verify {dataset}` names every such image"
        )
    return data


def _called(part: Part) -> str:
    config, split = part
    return f"split {split}" if config == "default" else f"split {split} in config {config}"


def _require_columns(present: Sequence[str], where: str) -> None:
    missing = [column for column in ("image", *_Row.model_fields) if column not in present]
    if missing:
        raise SpurbenchError(f"{where} is not spurbench's: no column {', '.join(missing)}")


class _Folder:
    """A finished dataset's folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, str(path)
        self.kind: Literal["dataset", "hub"] = "dataset"
        manifest = _Manifest.read(
            path / MANIFEST, "run the build again, or fetch the dataset again"
        )
        self.name = manifest.name
        self.version: str | None = manifest.version
        self.roles: Mapping[str, Role] = manifest.roles
        self._files = manifest.files

    def has(self, part: Part) -> bool:
        return bool(self._found(part))

    def files(self, part: Part) -> Iterator[_File]:
        for file in self._found(part):
            if not file.is_file():
                raise SpurbenchError(
                    f"{file} is not there, or is not a regular file; fetch the dataset again"
                )
            yield _File(str(file), self._rows(file), ParquetImages(file).read)

    def _rows(self, file: Path) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(file) as opened:
                _require_columns(opened.schema_arrow.names, str(file))
                for batch in opened.iter_batches(BATCH, columns=[*_Row.model_fields]):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError):
            raise SpurbenchError(
                f"{file} is damaged; `spurbench verify {self.path}` names every file that is"
            ) from None

    def changed(self, part: Part) -> str | None:
        for file in self._found(part):
            if file_sha256(file) != self._files.get(file.relative_to(self.path).as_posix()):
                return (
                    f"{file} is not the file that was published, for its sha256 is another; "
                    f"`spurbench verify {self.path}` names every such file"
                )
        return None

    def _found(self, part: Part) -> list[Path]:
        config, split = part
        prefix = split if config == "default" else f"{config}-{split}"
        listed = (self.path / file for file in self._files if _is_of(file, prefix))
        # One that is listed and not there is a fault, not a part that the dataset lacks.
        return sorted({*self.path.glob(f"data/{prefix}-*.parquet"), *listed})


def _is_of(file: str, prefix: str) -> bool:
    return re.fullmatch(rf"data/{prefix}-[^/]*\.parquet", file) is not None


class _Hub:
    """A dataset on the hub, or in its cache."""

    def __init__(self, name: str) -> None:
        self.where = self.name = name
        self.kind: Literal["dataset", "hub"] = "hub"
        self._default = self._load("default")
        some = next(iter(self._default.values()))
        self.version: str | None = str(some.info.version or "") or None
        self.roles = self._roles()

    def _roles(self) -> Mapping[str, Role]:
        from huggingface_hub import hf_hub_download

        try:
            file = Path(hf_hub_download(self.where, MANIFEST, repo_type="dataset"))
            return _Manifest.read(file, "fetch it again").roles
        except Exception as error:  # hub, HTTP and parsing errors have no common ancestor
            log.warning(
                "which classifiers had a part in making %s is not known (%s)",
                self.where,
                reason(error)[:160],
            )
            return {}

    def has(self, part: Part) -> bool:
        config, split = part
        return (config == "default" or config in self._configs) and split in self._of(config)

    def files(self, part: Part) -> Iterator[_File]:
        import datasets

        loaded, where = self._of(part[0])[part[1]], f"{self.where}, {_called(part)}"
        _require_columns(loaded.column_names, where)
        # Rows of mapped files: they are read when asked for, and memory holds none of them.
        encoded = loaded.select_columns("image").cast_column("image", datasets.Image(decode=False))
        rows = loaded.select_columns([*_Row.model_fields])
        yield _File(where, rows, partial(_mapped_image, encoded, where))

    def changed(self, part: Part) -> str | None:
        return None  # the hub's client checks what it fetches

    def _of(self, config: str) -> Mapping[str, datasets.Dataset]:
        return self._default if config == "default" else self._load(config)

    def _load(self, config: str) -> Mapping[str, datasets.Dataset]:
        import datasets

        # By no name, for what others made may call it otherwise.
        names = () if config == "default" else (config,)
        loaded: Mapping[str, datasets.Dataset] = self._had(datasets.load_dataset, *names)
        return loaded

    @cached_property
    def _configs(self) -> list[str]:
        import datasets

        names: list[str] = self._had(datasets.get_dataset_config_names)
        return names

    def _had(self, load: Any, *config: str) -> Any:
        try:
            return load(self.where, *config)
        except Exception as error:  # hub, HTTP and parsing errors have no common ancestor
            raise SpurbenchError(
                f"there is no folder {self.where}, and no dataset {self.where} can be had from "
                f"the hub ({reason(error)[:160]}); check the name and the network"
            ) from error


def _mapped_image(encoded: datasets.Dataset, where: str, row: int) -> bytes:
    data = (encoded[row]["image"] or {}).get("bytes")
    if not isinstance(data, bytes):
        raise SpurbenchError(f"{where}, row {row}: image.bytes is null; build it again")
    return data
