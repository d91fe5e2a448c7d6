"""Bad images, folders of images, and rows of datasets."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from faults.case import Case
from faults.generate import damaged, examples
from faults.world import World

SOUND = "spurious_class_094_hummingbird_component_2"


def cases(world: World) -> Iterator[Case]:
    """Images, folders' names, rows of parquet, damaged parquet."""
    yield from _images(world)
    yield from _names(world)
    yield from _rows(world)
    yield from _parquet(world)


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG of a size that its data need not have."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    gradient = Image.linear_gradient("L").resize((48, 40))
    (gradient if kind in ("TIFF", "GIF") else gradient.convert("RGB")).save(buffer, kind)
    return buffer.getvalue()


def _images(world: World) -> Iterator[Case]:
    readers = [
        world.evaluation("photographs"),
        ("select", "--data", "photographs", "--panel", str(world.model)),
        (*world.evaluation(world.photographs), "--positives", "positives"),
        (
            "build",
            "--recipe",
            str(world.recipe),
            "--classes",
            "hummingbird",
            "--data",
            "photographs",
            "--output",
            "o",
            "--set",
            "base.model=nowhere",
        ),
    ]
    contents: list[tuple[str, bytes]] = [
        ("a strip of 1x60000", _png(1, 60_000, bytes(2) * 60_000)),
        ("a strip of 60000x1", _png(60_000, 1, bytes(7_501))),
        ("a strip of 1x80,000,000", _png(1, 80_000_000, bytes(1_000))),
        ("1x1", _png(1, 1, bytes(2))),
        ("a bomb of 30000x30000", _png(30_000, 30_000, bytes(30_000))),
        ("a bomb of 2^31", _png(2**31 - 1, 2**31 - 1)),
        ("no pixels", _png(0, 0)),
        ("empty", b""),
        ("text", b"not an image"),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) run\n"),
    ]
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
        made = examples(damaged(_encoded(kind)), 8)
        contents += [(f"{kind}, damage {i}", data) for i, data in enumerate(made)]
    for i, (name, data) in enumerate(contents):
        for arguments in readers if i < 6 else (readers[i % 3],):
            yield _image_case(arguments, name, "bad.png", lambda path, d=data: path.write_bytes(d))
    for name, lay in {
        "a FIFO": os.mkfifo,
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a link to /dev/stdin": lambda path: path.symlink_to("/dev/stdin"),
        "a dangling link": lambda path: path.symlink_to("nowhere"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a folder": lambda path: path.mkdir(),
        "a link to /etc": lambda path: path.symlink_to("/etc"),
    }.items():
        for arguments in readers:
            yield _image_case(arguments, name, "bad.png", lay)
    sound = _encoded("PNG")
    for name in (
        os.fsdecode(b"caf\xe9.png"),
        os.fsdecode(b"\xff\xfe.png"),
        "new\nline.png",
        "x\nError: forged.png",
        "[red].png",
        "\x1b[2J.png",
        "\u202egnp.png",
        "²٩.png",
        "1²2.png",
        "-rf.png",
        "|a|b|.png",
        "<b>.png",
        "n" * 200 + ".png",
        ".hidden.png",
        " .png",
        "x.PNG",
    ):
        for data, what in ((sound, "sound"), (b"junk", "damaged")):
            for arguments in readers[:2]:
                write = lambda path, d=data: path.write_bytes(d)  # noqa: E731
                yield _image_case(arguments, f"{name[:30]!r}, {what}", name, write)


def _image_case(
    arguments: tuple[str, ...], name: str, file: str, lay: Callable[[Path], object]
) -> Case:
    def prepare(folder: Path) -> None:
        for place in (f"photographs/{SOUND}", "positives/n01833805"):
            (folder / place).mkdir(parents=True)
            for i in range(2):
                noise = Image.effect_noise((40, 40), 60 + i).convert("RGB")
                noise.save(folder / place / f"{i}.png")
            lay(folder / place / file)

    return Case(
        "image",
        f"{arguments[0]} {name}",
        arguments,
        prepare,
        output=("out/", "o/", ".stages/"),
        keeps=(".stages/",),
    )


def _names(world: World) -> Iterator[Case]:
    names = [
        "spurious_class_²_x_component_1",
        "spurious_class_٩٤_x_component_1",
        "spurious_class_094_x_component_²",
        "spurious_class_-94_x_component_1",
        "spurious_class_1000_x_component_1",
        "spurious_class_" + "9" * 230 + "_x_1",
        "spurious_class_094_[red]_component_1",
        "spurious_class_094_x\nError: forged_component_1",
        os.fsdecode(b"spurious_class_094_\xff_component_1"),
        "spurious_class__x_component_1",
        "spurious_class_094_component_1_" + "x" * 200 + "_1",
        "nothing of the kind",
    ]
    for name in names:
        yield Case(
            "folder name",
            repr(name[:50]),
            world.evaluation("photographs"),
            lambda folder, name=name: _photographs(folder / "photographs" / name),
            output=("out/",),
        )
    for name in ("²", "٩٤", "-1", "1000", "9" * 200, "094", "n01833805x", "n00000000"):
        yield Case(
            "folder name",
            f"positives {name[:50]!r}",
            (*world.evaluation(world.photographs), "--positives", "positives"),
            lambda folder, name=name: _photographs(folder / "positives" / name),
            output=("out/",),
        )
    for name, lay in {
        "two of one class": lambda folder: (
            _photographs(folder / SOUND),
            _photographs(folder / "spurious_class_094_again_component_1"),
        ),
        "no images": lambda folder: (folder / SOUND).mkdir(parents=True),
        "empty": lambda folder: folder.mkdir(),
        "a file": lambda folder: folder.write_text("x"),
        "a link to itself": lambda folder: folder.symlink_to(folder.name),
        "a FIFO": os.mkfifo,
    }.items():
        for arguments in (
            world.evaluation("photographs"),
            ("select", "--data", "photographs", "--panel", str(world.model)),
            ("verify", "photographs"),
        ):
            yield Case(
                "folder name",
                f"{arguments[0]} {name}",
                arguments,
                lambda folder, lay=lay: lay(folder / "photographs") and None,
                output=("out/",),
            )


def _photographs(folder: Path) -> None:
    folder.mkdir(parents=True)
    Image.effect_noise((40, 40), 60).convert("RGB").save(folder / "0.png")


def _rows(world: World) -> Iterator[Case]:
    """One value of one row, the manifest unchanged."""
    file = min(world.dataset.glob("data/generated-*.parquet")).name
    pixel = Image.new("RGB", (32, 32), "red")
    buffer = io.BytesIO()
    pixel.save(buffer, "PNG")
    changes: dict[str, tuple[str, Any]] = {
        "class_index -1": ("class_index", -1),
        "class_index 5000": ("class_index", 5000),
        "class_index null": ("class_index", None),
        "class_index of another": ("class_index", 105),
        "label 5": ("label", 5),
        "source bogus": ("source", "bogus"),
        "source null": ("source", None),
        "class_name markup": ("class_name", "humming[/b]bird"),
        "class_name null": ("class_name", None),
        "spurious_feature markup": ("spurious_feature", "[/]<script>alert(1)</script>"),
        "file_name climbing": ("file_name", "../../../OUTSIDE.png"),
        "file_name forged": ("file_name", "x\nError: forged.png"),
        "file_name null": ("file_name", None),
        "image null": ("image", None),
        "image without bytes": ("image", {"bytes": None, "path": "/etc/passwd"}),
        "image of a path": ("image", {"bytes": None, "path": "/dev/zero"}),
        "image empty": ("image", {"bytes": b"", "path": None}),
        "image junk": ("image", {"bytes": b"junk", "path": None}),
        "image another": ("image", {"bytes": buffer.getvalue(), "path": None}),
        "image a strip": ("image", {"bytes": _png(1, 60_000, bytes(120_000)), "path": None}),
        "panel null": ("panel", None),
        "panel empty": ("panel", []),
        "image_sha256 null": ("image_sha256", None),
        "seed null": ("seed", None),
    }
    for name, (column, value) in changes.items():
        for arguments, output in _readers(world):

            def lay(folder: Path, column: str = column, value: Any = value) -> None:
                shutil.copytree(world.dataset, folder / "data")
                path = folder / "data" / "data" / file
                table = pq.read_table(path)
                rows = table.to_pylist()
                rows[0][column] = value
                pq.write_table(pa.Table.from_pylist(rows, table.schema), path)

            takes = _takes(arguments, column)
            yield Case(
                "dataset row", f"{arguments[0]} {name}", arguments, lay, takes, output=output
            )
    for column in ("image", "class_index", "source", "file_name", "class_name", "panel"):
        for arguments, output in _readers(world):

            def lay(folder: Path, column: str = column) -> None:
                shutil.copytree(world.dataset, folder / "data")
                path = folder / "data" / "data" / file
                pq.write_table(pq.read_table(path).drop([column]), path)

            name, takes = f"{arguments[0]} no {column}", _takes(arguments, column)
            yield Case("dataset row", name, arguments, lay, takes, output=output)
    for column, kind in (
        ("class_index", pa.float64()),
        ("class_index", pa.string()),
        ("source", pa.binary()),
    ):
        for arguments, output in _readers(world):

            def lay(folder: Path, column: str = column, kind: Any = kind) -> None:
                shutil.copytree(world.dataset, folder / "data")
                path = folder / "data" / "data" / file
                table = pq.read_table(path)
                position = table.schema.get_field_index(column)
                cast = table.column(column).cast(kind)
                pq.write_table(table.set_column(position, column, cast), path)

            name, takes = f"{arguments[0]} {column} as {kind}", _takes(arguments, column)
            yield Case("dataset row", name, arguments, lay, takes, output=output)


def _takes(arguments: tuple[str, ...], column: str) -> str:
    """Verification misses nothing; an evaluation may take what it does not measure."""
    measured = column in {"image", "class_index", "source"}
    return "said" if arguments[0] == "verify" or (arguments[0] == "eval" and measured) else "any"


def _readers(world: World) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [
        (world.evaluation("data"), ("out/",)),
        (("verify", "data"), ()),
        (("diff", "data", str(world.successor)), ()),
    ]


def _parquet(world: World) -> Iterator[Case]:
    part = min(world.dataset.glob("data/generated-*.parquet"))
    readers = [
        *_readers(world),
        (
            ("leaderboard", "build", str(world.result()), "--data", "data", "--output", "board"),
            ("board/",),
        ),
    ]
    made = [*examples(damaged(part.read_bytes()), 24), b"", b"PAR1", b"PAR1" * 3, b"junk" * 100]
    for i, data in enumerate(made):
        arguments, output = readers[i % len(readers)]

        def lay(folder: Path, data: bytes = data) -> None:
            shutil.copytree(world.dataset, folder / "data")
            (folder / "data" / "data" / part.name).write_bytes(data)

        name = f"{arguments[0]}, damage {i}"
        takes = "any" if arguments[0] == "diff" else "said"
        yield Case("parquet", name, arguments, lay, takes, output=output)
    for name, change in {
        "a FIFO": os.mkfifo,
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a folder": lambda path: path.mkdir(),
        "missing": lambda path: None,
    }.items():
        for arguments, output in readers:

            def replace(folder: Path, change: Any = change) -> None:
                shutil.copytree(world.dataset, folder / "data")
                path = folder / "data" / "data" / part.name
                path.unlink()
                change(path)

            takes = "any" if arguments[0] == "diff" else "said"
            yield Case(
                "parquet", f"{arguments[0]} {name}", arguments, replace, takes, output=output
            )
    answers = world.result().with_suffix(".parquet")
    compare = ("compare", "results/" + world.result().name, str(world.result(1)))
    compare += ("--output", "comparison")
    rank = ("leaderboard", "show", "results", "--output", "tables")
    for i, data in enumerate([*examples(damaged(answers.read_bytes()), 10), b""]):
        arguments = (compare, rank)[i % 2]

        def damage(folder: Path, data: bytes = data) -> None:
            shutil.copytree(world.results, folder / "results")
            (folder / "results" / answers.name).write_bytes(data)

        yield Case(
            "parquet",
            f"{arguments[0]} answers, damage {i}",
            arguments,
            damage,
            "said",
            output=("comparison/", "tables/"),
        )
