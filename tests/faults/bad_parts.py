"""Bad rows in the parts of a dataset that stand beside its images: positives and twins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from faults.case import Case
from faults.world import World

CHANGES: dict[str, tuple[str, Any]] = {
    "twin_of null": ("twin_of", None),
    "twin_of nothing": ("twin_of", "0" * 64),
    "twin_of empty": ("twin_of", ""),
    "twin_of markup": ("twin_of", "x\nError: forged"),
    "replicate -1": ("replicate", -1),
    "replicate null": ("replicate", None),
    "replicate 7": ("replicate", 7),
    "replicate 2^31 - 1": ("replicate", 2**31 - 1),
    "object_absent null": ("object_absent", None),
    "object_absent other": ("object_absent", False),
    "feature_present other": ("feature_present", True),
    "is_reference null": ("is_reference", None),
    "is_reference other": ("is_reference", True),
    "class_index of another": ("class_index", 105),
    "class_index 5000": ("class_index", 5000),
    "source other": ("source", "control"),
    "image null": ("image", None),
    "image_sha256 other": ("image_sha256", "0" * 64),
    "seed 2^53": ("seed", 2**53),
    "file_name climbing": ("file_name", "../../../OUTSIDE.png"),
}
PARTS = ("controls-generated", "positives-real", "generated")


def cases(world: World) -> Iterator[Case]:
    """One value, one column or one file of each part."""
    for part in PARTS:
        yield from _values(world, part)
        yield from _columns(world, part)
        yield from _files(world, part)


def _readers(world: World, part: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    config = part.partition("-")[0] if "-" in part else "default"
    export = ("export", "data", "--output", "exported", "--config", config, "--format")
    return [
        (world.evaluation("data"), ("out/",)),
        (("verify", "data"), ()),
        (("diff", "data", str(world.successor)), ()),
        ((*export, "imagefolder"), ("exported/",)),
        ((*export, "webdataset"), ("exported/",)),
    ]


def _case(
    part: str,
    name: str,
    reader: tuple[tuple[str, ...], tuple[str, ...]],
    lay: Callable[[Path], None],
) -> Case:
    arguments, output = reader
    takes = "said" if arguments[0] in ("verify", "eval") else "any"
    return Case(f"row of {part}", f"{arguments[0]} {name}", arguments, lay, takes, output=output)


def _changed(world: World, part: str, change: Callable[[pa.Table], pa.Table]) -> Any:
    name = min(world.dataset.glob(f"data/{part}-*.parquet")).name

    def lay(folder: Path) -> None:
        shutil.copytree(world.dataset, folder / "data")
        path = folder / "data" / "data" / name
        pq.write_table(change(pq.read_table(path)), path)

    return lay


def _values(world: World, part: str) -> Iterator[Case]:
    for i, (name, (column, value)) in enumerate(CHANGES.items()):

        def change(table: pa.Table, column: str = column, value: Any = value) -> pa.Table:
            rows = table.to_pylist()
            rows[0][column] = value
            return pa.Table.from_pylist(rows, table.schema)

        readers = _readers(world, part)
        turn = readers[(i + PARTS.index(part)) % len(readers)]
        for reader in dict.fromkeys((readers[0], turn)):
            yield _case(part, name, reader, _changed(world, part, change))


def _columns(world: World, part: str) -> Iterator[Case]:
    readers = cycle(_readers(world, part))
    for column in ("twin_of", "replicate", "object_absent", "is_reference"):

        def without(table: pa.Table, column: str = column) -> pa.Table:
            return table.drop([column])

        def texts(table: pa.Table, column: str = column) -> pa.Table:
            position = table.schema.get_field_index(column)
            values = pa.array([f"x{i}" for i in range(len(table))])
            return table.set_column(position, column, values)

        for what, change in (("no", without), ("text as", texts)):
            yield _case(part, f"{what} {column}", next(readers), _changed(world, part, change))
    for reader in _readers(world, part):
        yield _case(part, "no rows", reader, _changed(world, part, lambda table: table.slice(0, 0)))


def _files(world: World, part: str) -> Iterator[Case]:
    """The file itself, and a part that another stands in for."""
    path = min(world.dataset.glob(f"data/{part}-*.parquet"))
    other = min(world.dataset.glob("data/real-*.parquet"))
    for name, change in {
        "missing": lambda file: None,
        "a FIFO": os.mkfifo,
        "a link to /dev/zero": lambda file: file.symlink_to("/dev/zero"),
        "cut short": lambda file: file.write_bytes(path.read_bytes()[:-100]),
        "another part": lambda file: file.write_bytes(other.read_bytes()),
    }.items():

        def lay(folder: Path, change: Any = change) -> None:
            shutil.copytree(world.dataset, folder / "data")
            file = folder / "data" / "data" / path.name
            file.unlink()
            change(file)

        for reader in _readers(world, part)[:2]:
            yield _case(part, name, reader, lay)
